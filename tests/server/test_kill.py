"""Servers killed with SIGKILL under load: each request that reached the provider has one entry in the ledger."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import running_proxy, wait_until
from tests.server.blocking_provider import BlockingProvider, running_blocking_provider
from tests.server.ledger_checks import SHORT_INTERVALS, check_one_entry_each, check_received_are_settled
from tests.server.load import CALLERS, Load


@pytest.fixture
def provider() -> Iterator[BlockingProvider]:
    with running_blocking_provider() as running:
        yield running


def test_kill_under_load_leaves_each_request_with_one_entry(provider: BlockingProvider, tmp_path: Path) -> None:
    succeeded: list[str] = []
    for number in range(2):
        with running_proxy(tmp_path, provider.url) as proxy, Load(proxy.base_url, f"round{number}") as load:
            provider.wait_for_requests(61)  # ten for each caller: some records are committed, some wait
            proxy.kill()
        succeeded += load.succeeded

    with running_proxy(tmp_path, provider.url) as proxy:
        check_one_entry_each(proxy, provider, callers=2 * CALLERS)
        check_received_are_settled(proxy.read_records(), succeeded)
        unsettled = [record for record in proxy.read_records() if record["basis"] == "unsettled"]
        assert len(unsettled) <= 2 * CALLERS, "more than the requests in flight"
        assert {record["outcome"] for record in unsettled} <= {"crashed"}


@pytest.mark.parametrize("fsync", [False, True])
def test_response_that_a_client_received_whole_is_settled_after_a_kill_at_any_moment(
    provider: BlockingProvider, tmp_path: Path, fsync: bool
) -> None:
    moments = random.Random(12)
    received: list[str] = []
    for number in range(4):
        with (
            running_proxy(tmp_path, provider.url, ledger={"fsync": fsync}) as proxy,
            Load(proxy.base_url, f"round{number}", streams=True) as load,
        ):
            load.wait_for_responses(moments.randrange(1, 40))
            time.sleep(moments.uniform(0, 0.03))  # the records of a batch wait for 20 ms
            proxy.kill()
        received += load.succeeded

    with running_proxy(tmp_path, provider.url) as proxy:
        check_one_entry_each(proxy, provider, callers=4 * CALLERS)
        check_received_are_settled(proxy.read_records(), received)


def test_two_processes_on_one_port_and_one_file_lose_and_double_nothing(
    provider: BlockingProvider, tmp_path: Path
) -> None:
    listen = {"host": "127.0.0.1", "port": 0, "reuse_port": True}
    with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, listen=listen) as first:
        both = {**listen, "port": int(first.base_url.rpartition(":")[2])}
        with running_proxy(tmp_path, provider.url, listen=both) as second:
            with Load(first.base_url, "both") as load:
                load.wait_for_responses(101)
                second.kill()
                load.wait_for_responses(51)
            served = [sum('"message":"request"' in line for line in proxy.log) for proxy in (first, second)]
            assert min(served) > 0, "the kernel gave one of them no connection"
        with running_proxy(tmp_path, provider.url, constants=SHORT_INTERVALS, listen=both) as third:
            wait_until(lambda: third.fetch_admin("/readyz")[0] == 200, "the third process")
            check_one_entry_each(third, provider, callers=CALLERS)
