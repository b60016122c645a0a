from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.harness import ProxyProcess, mint, running_proxy
from tests.replay_provider import ReplayProvider, running_replay_provider
from tornado_proxy.simulator import running_simulator

_PREFIXES = ("OPENAI_", "ANTHROPIC_", "MESHAGENT_")


@pytest.fixture(scope="package")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """The hosted proxy in front of the simulator."""
    with running_simulator() as upstream, running_proxy(tmp_path_factory.mktemp("proxy"), upstream) as running:
        yield running


@pytest.fixture(scope="package")
def running_server() -> Iterator[ReplayProvider]:
    with running_replay_provider() as running:
        yield running


@pytest.fixture
def server(running_server: ReplayProvider) -> ReplayProvider:
    """A server in the place of the proxy that keeps the requests which it receives."""
    running_server.requests.clear()
    return running_server


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture
def variables(proxy: ProxyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that `connect` sets for a program."""
    monkeypatch.setenv("MESHAGENT_API_URL", proxy.base_url)
    monkeypatch.setenv("MESHAGENT_TOKEN", mint())
