"""The long runs, made short: what they find in minutes must not be there in seconds."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness import ROOT
from tests.stress import disconnecting_clients, killed_server, stalled_clients
from tests.stress.__main__ import parser


@pytest.mark.parametrize("policy", ["drain", "cancel"])
def test_clients_that_leave_in_every_phase_harm_no_other_and_leave_nothing_behind(policy: str) -> None:
    report = asyncio.run(
        disconnecting_clients.run(disconnecting_clients.Run(leaving=100, complete=30, at_once=40, policy=policy))
    )

    assert report.faults == []


@pytest.mark.parametrize(("clients", "megabytes"), [(2, 80), (64, 8)])
def test_stalled_readers_lose_nothing_and_cost_less_than_256_kib_each(clients: int, megabytes: int) -> None:
    report = asyncio.run(stalled_clients.run(stalled_clients.Run(clients, megabytes, seconds=0)))

    assert report.faults == []


def test_a_killed_server_loses_no_request_and_doubles_none() -> None:
    assert killed_server.run(2).faults == []


def test_each_run_is_a_command_that_the_pages_name() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")

    for run in ("leaving", "stalled", "storm"):
        assert parser().parse_args([run]).run
        assert f"python -m tests.stress {run}" in page
