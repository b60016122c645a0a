"""Short versions of the long runs: a fault that takes them minutes must not show within seconds."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import ROOT
from tests.stress import disconnecting_clients, distinct_callers, killed_server, stalled_clients
from tests.stress.__main__ import make_parser


@pytest.mark.parametrize("policy", ["drain", "cancel"])
def test_clients_that_disconnect_in_every_phase_disturb_no_other_and_leak_nothing(policy: str) -> None:
    size = disconnecting_clients.DisconnectingRun(disconnecting=100, complete=30, concurrency=40, policy=policy)

    report = asyncio.run(disconnecting_clients.run(size))

    assert report.faults == []


@pytest.mark.parametrize(("clients", "megabytes"), [(2, 80), (64, 8)])
def test_stalled_clients_lose_no_byte_and_use_less_than_256_kib_each(clients: int, megabytes: int) -> None:
    report = asyncio.run(stalled_clients.run(stalled_clients.StalledRun(clients, megabytes, seconds=0)))

    assert report.faults == []


def test_killed_server_loses_no_request_and_counts_none_twice() -> None:
    assert killed_server.run(2).faults == []


def test_many_callers_with_budgets_do_not_make_memory_grow() -> None:
    report = asyncio.run(distinct_callers.run(distinct_callers.CallersRun(callers=400, connections=8)))

    assert report.faults == []


def test_each_run_is_documented_with_its_command() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")

    for run in ("leaving", "stalled", "storm", "callers"):
        assert make_parser().parse_args([run]).run
        assert f"python -m tests.stress {run}" in page
