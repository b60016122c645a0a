"""Start the real server as a child process on a free port; mint tokens, read its ledger, its log and its admin port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import yaml
from click.testing import CliRunner

from tests.forked_program import ForkedProgram, run_program, start_program
from tornado_proxy.cli import main as command_line

PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER_PROJECT = "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77"
KEY_ID = "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11"
OTHER_KEY_ID = "3f4f9f0e-27f8-4a55-93a5-6b7c8d9e0f12"
SIGNING_SECRET = "signing-secret-of-the-first-project-0123456789"
OTHER_SIGNING_SECRET = "signing-secret-of-the-other-project-9876543210"
OPENAI_KEY = "sk-provider-openai-7Qx1vB9mZ3"
ADMIN_TOKEN = "admin-token-5Tz0qR8wJ1"
ANTHROPIC_KEY = "sk-ant-provider-4Kd8wN2pL6"
STATE_KEYS = "k1:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE="

#: The environment variables that write_config() refers to.
SECRETS = {
    "TEST_OPENAI_KEY": OPENAI_KEY,
    "TEST_ANTHROPIC_KEY": ANTHROPIC_KEY,
    "TEST_SIGNING_SECRET": SIGNING_SECRET,
    "TEST_OTHER_SIGNING_SECRET": OTHER_SIGNING_SECRET,
    "TEST_ADMIN_TOKEN": ADMIN_TOKEN,
    "TEST_STATE_KEYS": STATE_KEYS,
}

ROOT = Path(__file__).parent.parent

#: Seconds.  Every step of a test takes far less, also on a busy machine; pytest's own limit is 120 s, so a test that
#: waits in vain fails with a message of its own.
TIMEOUT_S = 60

#: Seconds between two checks of a condition in another process, which sends no event.
POLL_S = 0.02

#: CliRunner replaces sys.stdout for the whole process, so only one thread may run a command.
_command_lock = threading.Lock()


def mint(
    *,
    name: str = "ada",
    project: str = PROJECT,
    key_id: str = KEY_ID,
    secret: str = SIGNING_SECRET,
    models: list[str] | None = None,
    api: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Return a participant token as a room's server signs it; a claim that is None is left out."""
    llm = {} if models is None else {"models": models}
    payload = {
        "name": name,
        "grants": [
            {"name": "room", "scope": "lab"},
            {"name": "role", "scope": "agent"},
            {"name": "api", "scope": {"llm": llm} if api is None else api},
        ],
        "sub": project,
        "kid": key_id,
        "exp": datetime.now(UTC) + timedelta(hours=1),
        **claims,
    }
    return jwt.encode({key: value for key, value in payload.items() if value is not None}, secret, algorithm="HS256")


def mint_for_other_project(name: str = "eve") -> str:
    """Return a token of OTHER_PROJECT, which may use gpt-4o-mini only and shares the provider keys."""
    return mint(name=name, project=OTHER_PROJECT, key_id=OTHER_KEY_ID, secret=OTHER_SIGNING_SECRET)


def wait_until(is_true: Callable[[], bool], description: str) -> None:
    """Poll until `is_true()`; fail with `description` after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline, f"timed out waiting for {description}"
        time.sleep(POLL_S)


def read_usage(ledger_url: str) -> list[dict[str, Any]]:
    """Return the lines that `tornado-proxy usage --format jsonl` prints for a ledger.

    The command runs in this process: a new Python process takes 0.3 s, and tests poll the ledger.
    """
    with _command_lock:
        printed = CliRunner().invoke(command_line, ["usage", "--ledger", ledger_url, "--format", "jsonl"])
    assert printed.exit_code == 0, printed.output
    return [json.loads(line) for line in printed.stdout.splitlines()]


@dataclass
class ProxyProcess:
    """A running `tornado-proxy serve`."""

    process: subprocess.Popen[str] | ForkedProgram
    folder: Path
    base_url: str = ""
    admin_url: str = ""
    #: The URL of the ledger, for a test that configures another one than `ledger`.
    ledger_url: str = ""
    log: list[str] = field(default_factory=list)
    _log_changed: threading.Condition = field(default_factory=threading.Condition)
    _log_closed: bool = False

    @property
    def ledger(self) -> Path:
        """The SQLite file that write_config() names."""
        return self.folder / "ledger.db"

    def read_records(self, *, count: int = 0) -> list[dict[str, Any]]:
        """Return the records of the ledger, oldest first; wait until there are `count`."""
        return self._wait_for_records(lambda record: True, count)

    def read_session_records(self, session: str, count: int) -> list[dict[str, Any]]:
        """Return the records of a WebSocket session, oldest first; wait until there are `count`."""
        return self._wait_for_records(lambda record: record["session"] == session, count)

    def read_record(self, request_id: str) -> dict[str, Any]:
        """Return the record of a request; wait for it."""
        records = self._wait_for_records(lambda record: record["request_id"] == request_id, 1)
        assert records, f"no record of {request_id} in the ledger"
        return records[0]

    def _wait_for_records(self, matches: Callable[[dict[str, Any]], bool], count: int) -> list[dict[str, Any]]:
        """Return the matching records; fewer than `count` if TIMEOUT_S passes, so that the caller's assertion fails."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            records = [
                record for record in read_usage(self.ledger_url or f"sqlite:///{self.ledger}") if matches(record)
            ]
            if len(records) >= count or time.monotonic() > deadline:
                return records
            time.sleep(POLL_S)

    def fetch_admin(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Send a request to the admin port; return the status and the text of the response."""
        data = b"" if method == "POST" else None
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        request = urllib.request.Request(self.admin_url + path, method=method, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process as a crash does, with SIGKILL."""
        self.process.kill()
        self.wait_exit()

    def wait_exit(self) -> int:
        """Return the exit code; wait for the end of the process."""
        return self.process.wait(TIMEOUT_S)

    def wait_for_log(self, text: str, *, count: int = 1) -> str:
        """Return the `count`-th log line that contains `text`; wait for it."""
        return self.wait_for_log_lines(text, count)[count - 1]

    def wait_for_log_lines(self, text: str, count: int) -> list[str]:
        """Return all log lines that contain `text`; wait until there are `count`."""
        found: list[str] = []
        checked = 0
        deadline = time.monotonic() + TIMEOUT_S
        with self._log_changed:
            while True:
                found += [line for line in self.log[checked:] if text in line]
                checked = len(self.log)
                if len(found) >= count:
                    return found
                if self._log_closed or not self._log_changed.wait(deadline - time.monotonic()):
                    break
        raise AssertionError(f"{len(found)} of {count} lines with {text!r} in the log:\n" + "\n".join(self.log))

    def collect_log(self) -> None:
        """Read the log until the process ends.  Runs in a thread of its own."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._log_changed:
                self.log.append(line.rstrip("\n"))
                self._log_changed.notify_all()
        with self._log_changed:
            self._log_closed = True
            self._log_changed.notify_all()


def write_config(folder: Path, upstream: str, **changes: Any) -> Path:
    """Write a configuration with two projects whose provider is at `upstream`; return its path.

    Args:
        folder: Where proxy.yaml is written; the ledger is in the same folder.
        upstream: The base URL of both providers.
        changes: Replace top-level members.
    """
    config: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": 0},
        "admin": {"host": "127.0.0.1", "port": 0, "token": {"env": "TEST_ADMIN_TOKEN"}},
        "providers": {
            "openai": {"base_url": upstream, "api_key": {"env": "TEST_OPENAI_KEY"}},
            "anthropic": {"base_url": upstream, "api_key": {"env": "TEST_ANTHROPIC_KEY"}},
        },
        "pricing": {"path": str(ROOT / "conf" / "prices"), "surcharge_rate": "0.05"},
        "ledger": {"url": "sqlite:///ledger.db"},
        "projects": [
            {
                "id": PROJECT,
                "name": "first",
                "api_keys": [{"id": KEY_ID, "secret": {"env": "TEST_SIGNING_SECRET"}}],
            },
            {
                "id": OTHER_PROJECT,
                "name": "other",
                "api_keys": [{"id": OTHER_KEY_ID, "secret": {"env": "TEST_OTHER_SIGNING_SECRET"}}],
                "models": ["openai/gpt-4o-mini"],
            },
        ],
        **changes,
    }
    path = folder / "proxy.yaml"
    path.write_text(yaml.dump(config, Dumper=_PlainDumper, sort_keys=False))
    return path


class _PlainDumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: a configuration may have no anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@contextlib.contextmanager
def running_proxy(
    folder: Path,
    upstream: str,
    *,
    program: str = "tornado_proxy",
    constants: Mapping[str, float | list[float]] | None = None,
    **changes: Any,
) -> Iterator[ProxyProcess]:
    """Start the server and wait until it accepts connections; stop it at the end.

    Args:
        folder: The folder of its configuration and its ledger.
        upstream: The base URL of its providers.
        program: The module to run.
        constants: Other values of module constants, by their full names (tests/server/with_constants.py); another
            program reads them itself.
        changes: Top-level members of the configuration, for write_config().
    """
    config = write_config(folder, upstream, **changes)
    if constants is not None and program == "tornado_proxy":
        program = "tests.server.with_constants"
    environment = {**os.environ, **SECRETS, "PYTHONUNBUFFERED": "1", "CONSTANTS": json.dumps(constants)}
    process = start_program(program, ["serve", "--config", str(config)], environment, pipes=["stderr"])
    proxy = ProxyProcess(process, folder)
    reader = threading.Thread(target=proxy.collect_log, daemon=True)
    reader.start()
    try:
        proxy.base_url = _url_in(proxy.wait_for_log("clients: "))
        proxy.admin_url = _url_in(proxy.wait_for_log("admin: "))
        yield proxy
    finally:
        _stop(process)
        reader.join(TIMEOUT_S)
        if process.stderr is not None:
            process.stderr.close()


def run_serve(config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `tornado-proxy serve` with a configuration that it rejects; return its exit code and output."""
    return run_program("tornado_proxy", ["serve", "--config", str(config)], {**os.environ, **SECRETS, **environment})


def _stop(process: subprocess.Popen[str] | ForkedProgram) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _url_in(line: str) -> str:
    return line[line.index("http") :].split()[0]
