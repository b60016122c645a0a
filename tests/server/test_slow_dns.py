"""A slow name server delays the requests that need the name, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from tests.server.slow_dns import CALLERS, CONNECT_TIMEOUT_S

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--net")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts that tests/server/slow_dns.py prints, run in a network namespace with our name server."""
    try:
        subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot create a network namespace")
    folder: Path = tmp_path_factory.mktemp("dns")
    program = [*UNSHARE, sys.executable, "-m", "tests.server.slow_dns", str(folder)]
    finished = subprocess.run(program, check=False, capture_output=True, text=True, cwd=ROOT, timeout=90)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


@pytest.mark.parametrize("scenario", ["disconnect", "timeout", "http", "websocket"])
def test_requests_to_other_names_are_served_while_a_name_is_delayed(scenario: str, facts: dict[str, Any]) -> None:
    assert facts[scenario]["others"] == [200] * 10
    # They were served before the delayed name was released, whatever time they took.
    assert facts[scenario]["still_delayed"]


def test_delayed_requests_are_served_when_the_name_is_resolved(facts: dict[str, Any]) -> None:
    assert facts["http"]["then"] == [200] * CALLERS
    assert facts["websocket"]["then"] == "session.created"


def test_name_that_is_not_resolved_in_time_is_a_504_and_free(facts: dict[str, Any]) -> None:
    assert facts["timeout"]["then"] == [504, "upstream_timeout"]
    assert CONNECT_TIMEOUT_S - 0.5 < facts["timeout"]["waited_s"] < CONNECT_TIMEOUT_S + 5
    assert (facts["timeout"]["record"]["basis"], facts["timeout"]["record"]["status"]) == ("free", 504)


def test_clients_that_disconnect_while_a_name_is_delayed_pay_nothing(facts: dict[str, Any]) -> None:
    assert facts["disconnected"] == ["free"] * CALLERS
