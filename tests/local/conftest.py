from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ProxyProcess, mint, running_proxy
from tests.local.local_proxy import LocalProxy, running_local
from tests.local.machine import Machine
from tests.oauth.real_issuer import RealIssuer, running_real_issuer
from tornado_proxy.simulator import Simulator, running_simulator

#: Members of a record that say what the request cost and why.
BILL = ("model", "basis", "estimate_method", "usage", "line_items", "subtotal", "surcharge", "total")


@pytest.fixture(scope="package")
def issuer() -> Iterator[RealIssuer]:
    with running_real_issuer() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="package")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxyProcess, LocalProxy]]:
    """`local` in front of `serve` in front of the simulator."""
    folder = tmp_path_factory.mktemp("chain")
    with (
        running_simulator(Simulator(settle_s=0.3)) as upstream,
        running_proxy(folder, upstream) as proxy,
        running_local(Machine(folder / "home"), "--upstream", proxy.base_url, MESHAGENT_TOKEN=mint()) as local,
    ):
        yield proxy, local
