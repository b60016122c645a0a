"""`tornado-proxy demo`: its printed lines work when they are pasted into a shell."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.forked_program import ForkedProgram, run_program, start_program
from tests.harness import ROOT, mint
from tornado_proxy.auth.api_key import format_api_key, generate, parse_api_key
from tornado_proxy.auth.unverified_token import read_unverified
from tornado_proxy.cli.demo import keep_token

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str] | ForkedProgram, str]]:
    """Yield the process of a running demo and its output."""
    process = start_program(
        "tornado_proxy",
        ["demo", "--port", "0", "--admin-port", "0", "--dir", str(folder)],
        {**{name: value for name, value in os.environ.items() if name not in _KEYS}, **environment},
        pipes=["stdout"],
    )
    assert process.stdout is not None
    with process:
        try:
            printed = ""
            while "Ctrl-C" not in printed:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            yield process, printed
        finally:
            process.terminate()


def shell(command: str, printed: str) -> str:
    """Return the output of `command` in a shell that has run the `export` lines."""
    exports = "\n".join(line for line in printed.splitlines() if line.startswith("export "))
    done = subprocess.run(
        ["bash", "-ec", f"{exports}\n{command}"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_printed_lines_work_in_a_shell(tmp_path: Path) -> None:
    with demo(tmp_path / "it's a folder") as (_, printed):
        assert "anthropic and openai: the built-in simulator responds" in printed
        curl = re.search(r"^curl .*\\\n.*$", printed, re.MULTILINE)
        assert curl is not None
        cost = re.search(r"^What it cost: (.*)$", printed, re.MULTILINE)
        assert cost is not None

        answer = shell(curl[0].replace("curl ", "curl -sS ", 1), printed)
        bill = shell(f"for _ in $(seq 50); do {cost[1]} | grep gpt-4o-mini && exit; sleep 0.1; done; exit 1", printed)
        models = shell('curl -sS "$OPENAI_BASE_URL/models" -H "Authorization: Bearer $OPENAI_API_KEY"', printed)
        claude = shell('curl -sS "$ANTHROPIC_BASE_URL/v1/models" -H "x-api-key: $ANTHROPIC_API_KEY"', printed)

    assert '"role":"assistant"' in answer
    assert "0.000" in bill
    assert '"gpt-4o-mini"' in models
    assert '"claude-sonnet-5"' in claude


def test_ctrl_c_exits_with_0_and_tokens_stay_valid(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, first):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with demo(tmp_path) as (_, second):
        token = re.search(r"^export OPENAI_API_KEY=(\S+)", first, re.MULTILINE)
        assert token is not None
        listed = shell(
            f'curl -sS "$OPENAI_BASE_URL/models" -H {shlex.quote(f"Authorization: Bearer {token[1]}")}', second
        )

    assert '"gpt-4o-mini"' in listed
    assert f"export OPENAI_API_KEY={token[1]}\n" in second
    assert re.search(r"^The token is valid until \d{4}-\d\d-\d\d \d\d:\d\d UTC", second, re.MULTILINE)


def test_demo_runs_without_assertions(tmp_path: Path) -> None:
    """`python -O` removes `assert`; no input from outside may depend on one."""
    with demo(tmp_path, PYTHONOPTIMIZE="1") as (_, printed):
        curl = 'curl -sS "$OPENAI_BASE_URL/chat/completions" -H "Authorization: Bearer $OPENAI_API_KEY" -d '
        body = '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}'
        good = shell(curl + shlex.quote(body), printed)
        bad = [shell(curl + shlex.quote(body), printed) for body in ("", "[]", "{", '{"model":1}', '{"model":"x"}')]
        claude = shell(
            'curl -sS "$ANTHROPIC_BASE_URL/v1/messages" -H "x-api-key: $ANTHROPIC_API_KEY" '
            """-d '{"model":"claude-sonnet-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'""",
            printed,
        )

    assert "data: [DONE]" in good
    assert [("invalid_request_error" in response) for response in bad] == [True] * 5
    assert '"type":"message"' in claude


def test_participant_token_in_the_environment_is_not_used_as_a_provider_key(tmp_path: Path) -> None:
    with demo(tmp_path, OPENAI_API_KEY=mint(), ANTHROPIC_API_KEY="sk-ant-looks-like-one") as (_, printed):
        pass

    assert "for openai: the built-in simulator responds" in printed
    assert "Requests to anthropic go to the real provider and cost money" in printed
    assert "/anthropic/v1/messages" in printed


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param("", "name another --dir", id="the folder is a file"),
        pytest.param("api_key", "remove the file", id="the key file contains no key"),
    ],
)
def test_unusable_folder_is_a_one_line_error(file: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    if file:
        folder.mkdir()
    (folder / file).write_text("nothing\n")

    refused = run_demo("--port", "0", "--admin-port", "0", "--dir", str(folder))

    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert message in refused.stderr


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    return run_program("tornado_proxy", ["demo", *options], os.environ)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("ledger")}


def test_second_demo_changes_nothing_of_the_first(tmp_path: Path) -> None:
    with demo(tmp_path) as (_, printed):
        before = read_files(tmp_path)
        port = re.search(r"127\.0\.0\.1:(\d+)/openai", printed)
        assert port is not None

        same_ports = run_demo("--port", port[1], "--admin-port", "0", "--dir", str(tmp_path))
        other_ports = run_demo("--port", "0", "--admin-port", "0", "--dir", str(tmp_path))
        same_admin_port = run_demo("--port", "0", "--admin-port", port[1], "--dir", str(tmp_path / "other"))

        assert read_files(tmp_path) == before
    for refused in (same_ports, same_admin_port):
        assert refused.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port[1]}: Address already in use" in refused.stderr
        assert "--port and --admin-port" in refused.stderr
    assert other_ports.returncode == 1
    assert f"another demo runs in {tmp_path}; stop it, or name another --dir" in other_ports.stderr
    assert not (tmp_path / "other").exists()


def test_token_is_renewed_on_its_last_day_and_for_another_key(tmp_path: Path) -> None:
    key, other = (parse_api_key(format_api_key(generate(str(uuid.uuid4()))).reveal()) for _ in range(2))
    start = datetime(2026, 11, 1, tzinfo=UTC)

    first = keep_token(tmp_path / "token", key, start)

    assert keep_token(tmp_path / "token", key, start + timedelta(days=6)) == first
    second = keep_token(tmp_path / "token", key, start + timedelta(days=6, seconds=1))
    assert second != first
    assert read_unverified(second).claims["exp"] == datetime(2026, 11, 14, 0, 0, 1, tzinfo=UTC).timestamp()
    assert keep_token(tmp_path / "token", other, start + timedelta(days=7)) not in (first, second)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
