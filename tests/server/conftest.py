from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import ProxyProcess, running_proxy
from tests.replay_provider import ReplayProvider, running_replay_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[ReplayProvider]:
    """A provider that sends the response that a test sets."""
    with running_replay_provider() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(provider: ReplayProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The real server in front of `provider`, shared by the tests of a file."""
    with running_proxy(tmp_path_factory.mktemp("proxy"), provider.url) as running:
        yield running
