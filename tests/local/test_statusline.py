"""The status line shows the spend of a ledger and the rest of a real server's budget, and imports few modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from pathlib import Path

import openai
import pytest

from tests.cli.rated_ledger import write_ledger
from tests.harness import ROOT, TIMEOUT_S, mint, running_proxy, wait_until
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.simulator import Simulator, running_simulator

SESSION = "a2097e00-54e3-4f6e-a279-de05e359ab5b"

#: Modules that a call imports, those of an interpreter's start among them; some 110 on CPython 3.11.
MAX_MODULES = 150


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


def test_call_imports_little(ledger: str) -> None:
    """Imports are most of the time that a call takes, and Claude Code makes one every few hundred milliseconds."""
    command = [sys.executable, "-X", "importtime", "-m", "tornado_proxy", "statusline", "--ledger", ledger]
    result = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)

    imported = [line.rpartition("|")[2].strip() for line in result.stderr.splitlines()]
    packages = {name.partition(".")[0] for name in imported} & set(packages_distributions())
    assert {name for name in packages if not name.startswith("_")} == {"tornado_proxy", "platformdirs"}
    assert len(imported) < MAX_MODULES
