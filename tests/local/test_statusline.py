"""The status line shows what was spent, from the ledger, and what is left, from a real server; and is quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest

from tests.cli.rated_ledger import write_ledger
from tests.harness import ROOT, TIMEOUT_S, mint, running_proxy, wait_until
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.simulator import Simulator, running_simulator

SESSION = "a2097e00-54e3-4f6e-a279-de05e359ab5b"

#: Seconds of work beyond the start of an interpreter that imports nothing; 0.025 when it was written.
MAX_WORK_S = 0.05

#: Runs of which the fastest counts.
RUNS = 10


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Return a ledger of 0.0023625 USD today in the session, the same in another one, and the same long ago."""
    now = datetime.now(UTC)
    own, other = Attribution(agent_session=SESSION), Attribution(agent_session="other")
    return write_ledger(
        tmp_path,
        [
            make_record(make_intent("r1", started_at=now, attribution=own)),
            make_record(make_intent("r2", started_at=now, attribution=other)),
            make_record(make_intent("r3", attribution=own)),
        ],
    )


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tornado_proxy", "statusline", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_claude_code_gets_today_and_its_session(ledger: str) -> None:
    claude_code = json.dumps({"session_id": SESSION, "model": {"id": "claude-opus-4-8"}, "cost": {"total_cost_usd": 1}})

    result = run("--ledger", ledger, stdin=claude_code)

    # 0.004725 and 0.0023625.
    assert (result.returncode, result.stdout) == (0, "$0.0047 today · $0.0024 session\n")


@pytest.mark.parametrize("stdin", ["", "not json", "[]", '{"session_id": 7}'])
def test_tmux_gets_today_alone(ledger: str, stdin: str) -> None:
    assert run("--ledger", ledger, stdin=stdin).stdout == "$0.0047 today\n"


def test_missing_ledger_is_no_failure(tmp_path: Path) -> None:
    result = run("--ledger", f"sqlite:///{tmp_path}/none.db")

    assert (result.returncode, result.stdout, result.stderr) == (0, "no ledger\n", "")
    assert not (tmp_path / "none.db").exists()


def test_wrong_option_is_a_usage_error() -> None:
    result = run("--colour", "red")

    assert (result.returncode, result.stderr[:22]) == (2, "wrong option --colour;")


def test_budget_of_the_server_is_shown_from_the_second_call_on(tmp_path: Path) -> None:
    budgets = {"default_project": {"budgets": [{"period": "day", "usd": "20", "per": "participant"}]}}
    token, state = mint(), str(tmp_path / "state")
    with running_simulator(Simulator()) as url, running_proxy(tmp_path, url, budgets=budgets) as proxy:
        client = openai.OpenAI(base_url=f"{proxy.base_url}/v1", api_key=token, timeout=TIMEOUT_S, max_retries=0)
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], max_tokens=10)
        proxy.read_records(count=1)
        arguments = ("--ledger", f"sqlite:///{proxy.ledger}", "--api", proxy.base_url, "--token-env", "TOKEN")
        first = run(*arguments, TOKEN=token, XDG_STATE_HOME=state)
        cache = Path(state) / "tornado-proxy" / "statusline.json"
        wait_until(cache.exists, "the budgets")
        second = run(*arguments, TOKEN=token, XDG_STATE_HOME=state)

    # The request costs less than half a cent, and so does its reservation if that is still counted.
    assert first.stdout.endswith(" today\n")
    assert second.stdout == first.stdout.replace("\n", " · $20.00 left\n")
    assert cache.stat().st_mode & 0o777 == 0o600
    assert token not in cache.read_text()


def test_work_beyond_the_start_of_the_interpreter_is_short(ledger: str) -> None:
    def measure(*arguments: str) -> float:
        """Return the seconds of CPU that a command takes: the machine's other work does not count."""
        command = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT
        )
        _, status, used = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
        assert command.returncode == 0
        return used.ru_utime + used.ru_stime

    start = min(measure("-c", "pass") for _ in range(RUNS))
    whole = min(
        measure("-m", "tornado_proxy", "statusline", "--ledger", ledger, "--session", SESSION) for _ in range(RUNS)
    )

    assert whole - start < MAX_WORK_S
