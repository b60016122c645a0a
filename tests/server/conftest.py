from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import ProxyProcess, running_proxy
from tests.replay import Replay, replaying


@pytest.fixture(scope="module")
def provider() -> Iterator[Replay]:
    """A provider that answers with what a test gives it."""
    with replaying() as replay:
        yield replay


@pytest.fixture(scope="module")
def proxy(provider: Replay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The real server in front of `provider`."""
    with running_proxy(tmp_path_factory.mktemp("proxy"), provider.url) as running:
        yield running
