"""A name server that is slow holds up those who need it, and nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from tests.server.slow_dns import CALLERS, CONNECT_TIMEOUT_S

APART = ("unshare", "--user", "--map-root-user", "--mount", "--net")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened to the callers of a server in a network of its own, where the name server is ours."""
    try:
        subprocess.run([*APART, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network of its own can be made here")
    folder: Path = tmp_path_factory.mktemp("apart")
    program = [*APART, sys.executable, "-m", "tests.server.slow_dns", str(folder)]
    ran = subprocess.run(program, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("wait", ["leaving", "time_out", "http", "web_socket"])
def test_calls_elsewhere_are_answered_while_a_name_is_waited_for(wait: str, facts: dict[str, Any]) -> None:
    assert facts[wait]["beside"]["statuses"] == [200] * 10
    assert facts[wait]["still_held"]
    assert facts[wait]["beside"]["took_s"] < 2  # one that waits for the name would take longer


def test_those_who_wait_for_a_name_are_answered_when_it_has_come(facts: dict[str, Any]) -> None:
    assert facts["http"]["then"] == [200] * CALLERS
    assert facts["web_socket"]["then"] == "session.created"


def test_a_name_that_does_not_come_in_time_is_a_504_that_costs_nothing(facts: dict[str, Any]) -> None:
    assert facts["time_out"]["then"] == [504, "upstream_timeout"]
    assert CONNECT_TIMEOUT_S - 0.5 < facts["time_out"]["waited_s"] < CONNECT_TIMEOUT_S + 5
    assert (facts["time_out"]["record"]["basis"], facts["time_out"]["record"]["status"]) == ("free", 504)


def test_clients_that_leave_while_a_name_is_waited_for_owe_nothing(facts: dict[str, Any]) -> None:
    assert facts["left"] == ["free"] * CALLERS
