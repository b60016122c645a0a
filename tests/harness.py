"""The real server as a child process on a real port, and what tests need to talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import yaml

PROJECT = "0c9f8a5e-9a1e-4f6b-8c43-1d2a7f6f0a10"
OTHER_PROJECT = "5b0a3c1e-1d57-4a6e-9d53-5b1f2a1f6c77"
KEY_ID = "7d0e8a72-0c55-4c0f-9a5b-7f1f1f0f2a11"
OTHER_KEY_ID = "3f4f9f0e-27f8-4a55-93a5-6b7c8d9e0f12"
SIGNING_SECRET = "signing-secret-of-the-first-project-0123456789"
OTHER_SIGNING_SECRET = "signing-secret-of-the-other-project-9876543210"
OPENAI_KEY = "sk-provider-openai-7Qx1vB9mZ3"
ANTHROPIC_KEY = "sk-ant-provider-4Kd8wN2pL6"

ROOT = Path(__file__).parent.parent

#: Seconds; far above what any step takes, far below the test's own limit.
PATIENCE_S = 30


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
    """A participant token as a room's server would sign it."""
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


@dataclass
class ProxyProcess:
    """A running `tornado-proxy serve`."""

    process: subprocess.Popen[str]
    folder: Path
    base_url: str = ""
    admin_url: str = ""
    ledger_url: str = ""
    log: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    def records(self, *, count: int | None = None) -> list[dict[str, Any]]:
        """The ledger as `tornado-proxy usage --format jsonl` prints it; waits until it holds `count` records."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lines = self._usage()
            if count is None or len(lines) >= count or time.monotonic() > deadline:
                return lines
            time.sleep(0.05)

    def session_records(self, session: str, count: int) -> list[dict[str, Any]]:
        """The records of one WebSocket session, oldest first; waits until there are `count`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [line for line in self._usage() if line["session"] == session]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def record(self, request_id: str) -> dict[str, Any]:
        """The record of one request; waits for it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.closing(sqlite3.connect(self.ledger)) as ledger:
                found = ledger.execute("select 1 from records where request_id = ?", (request_id,)).fetchone()
            if found:
                return next(line for line in self._usage() if line["request_id"] == request_id)
            time.sleep(0.02)
        raise AssertionError(f"no record of {request_id} in the ledger")

    def _usage(self) -> list[dict[str, Any]]:
        printed = subprocess.run(
            [
                sys.executable,
                "-m",
                "tornado_proxy",
                "usage",
                "--ledger",
                self.ledger_url or f"sqlite:///{self.ledger}",
                "--format",
                "jsonl",
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        return [json.loads(line) for line in printed.stdout.splitlines()]

    def admin(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """One call on the admin port: status and text."""
        request = urllib.request.Request(self.admin_url + path, method=method, data=b"" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE_S)

    def wait_for_log(self, text: str) -> str:
        """The first log line that holds `text`; waits for it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for line in tuple(self.log):
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not in the log:\n" + "\n".join(self.log))


def write_config(folder: Path, upstream: str, **changes: Any) -> Path:
    """A configuration with two projects whose provider is `upstream`; `changes` replace top-level members."""
    config: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": 0},
        "admin": {"host": "127.0.0.1", "port": 0},
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
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@contextlib.contextmanager
def running_proxy(
    folder: Path, upstream: str, *, program: str = "tornado_proxy", **changes: Any
) -> Iterator[ProxyProcess]:
    """Start the server in front of `upstream` and wait until it is ready; it is stopped at the end.

    `program` is the module to run; `changes` are for write_config.
    """
    config = write_config(folder, upstream, **changes)
    environment = {
        **os.environ,
        "TEST_OPENAI_KEY": OPENAI_KEY,
        "TEST_ANTHROPIC_KEY": ANTHROPIC_KEY,
        "TEST_SIGNING_SECRET": SIGNING_SECRET,
        "TEST_OTHER_SIGNING_SECRET": OTHER_SIGNING_SECRET,
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", program, "serve", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    proxy = ProxyProcess(process, folder)
    reader = threading.Thread(target=_collect, args=(proxy,), daemon=True)
    reader.start()
    try:
        proxy.base_url = _address(proxy.wait_for_log("clients: "))
        proxy.admin_url = _address(proxy.wait_for_log("admin: "))
        yield proxy
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(PATIENCE_S)
        if process.stderr is not None:
            process.stderr.close()


def _collect(proxy: ProxyProcess) -> None:
    assert proxy.process.stderr is not None
    for line in proxy.process.stderr:
        proxy.log.append(line.rstrip("\n"))


def _address(line: str) -> str:
    return line[line.index("http://") :].split()[0]
