"""A receiver that is killed, and a push that is killed, end with each event once."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.exports.generated_ledger import write_generated_ledger
from tests.harness import ROOT, wait_until
from tornado_proxy.cli import main

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()  # of the test

#: Times that the receiver is killed; more by hand.
KILLS = int(os.environ.get("EXPORT_KILLS", "4"))

#: Events between two kills.
EVENTS_PER_LIFE = 15


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    write_generated_ledger(path, KILLS * EVENTS_PER_LIFE + 100)
    return path


def find_free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def make_arguments(ledger: Path, url: str, *more: str) -> list[str]:
    return ["export", "push", "--ledger", f"sqlite:///{ledger}", "--to", url, "--secret-env", "RECEIVER_SECRET", *more]


def start_receiver(port: int, database: Path, die_after: int, when: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.exports.receiver_process", str(port), str(database), str(die_after), when],
        cwd=ROOT,
        env={**os.environ, "RECEIVER_SECRET": SECRET},
    )


def start_push(ledger: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tornado_proxy", *make_arguments(ledger, f"http://127.0.0.1:{port}/events")],
        cwd=ROOT,
        env={**os.environ, "RECEIVER_SECRET": SECRET},
        stderr=subprocess.PIPE,
    )


def read_column(database: Path, sql: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        try:
            return [value for (value,) in db.execute(sql)]
        except sqlite3.OperationalError:
            return []


def list_events(ledger: Path) -> list[str]:
    result = CliRunner().invoke(main, ["export", "events", "--ledger", f"sqlite:///{ledger}"])
    return result.stdout.splitlines()


def test_receiver_that_is_killed_ends_with_each_event_once(ledger: Path, tmp_path: Path) -> None:
    port, database = find_free_port(), tmp_path / "received.db"
    push = start_push(ledger, port)
    for life in range(KILLS):
        receiver = start_receiver(port, database, EVENTS_PER_LIFE, "before" if life % 2 else "after")
        assert receiver.wait(60) == -signal.SIGKILL
    receiver = start_receiver(port, database, 0, "never")
    try:
        push.communicate(timeout=60)
        assert push.returncode == 0
    finally:
        receiver.kill()
        receiver.wait()

    attempts = read_column(database, "SELECT id FROM attempts")
    assert sorted(read_column(database, "SELECT body FROM events")) == sorted(list_events(ledger))
    assert len(attempts) == len(set(attempts)) + KILLS  # each kill left one event without a response
    assert read_column(ledger, "SELECT name FROM cursors") == [f"http://127.0.0.1:{port}/events"]


def test_push_that_is_killed_sends_again_what_the_receiver_may_not_have(ledger: Path, tmp_path: Path) -> None:
    port, database = find_free_port(), tmp_path / "received.db"
    receiver = start_receiver(port, database, 0, "never")
    try:
        for count in (5, 120):
            push = start_push(ledger, port)
            wait_until(lambda count=count: len(read_column(database, "SELECT id FROM attempts")) > count, "events")
            push.kill()
            push.communicate(timeout=60)
        push = start_push(ledger, port)
        _, printed = push.communicate(timeout=60)
        assert (push.returncode, b" events, cursor " in printed) == (0, True)
    finally:
        receiver.kill()
        receiver.wait()

    assert sorted(read_column(database, "SELECT body FROM events")) == sorted(list_events(ledger))


class OneStatus(BaseHTTPRequestHandler):
    """Responds with the statuses of its server, one after the other, then with 204."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def receiver_with(*statuses: int) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), OneStatus)
    server.statuses = list(statuses)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def run_push(ledger: Path, url: str, *more: str, secret: str = SECRET) -> Result:
    return CliRunner().invoke(main, make_arguments(ledger, url, *more), env={"RECEIVER_SECRET": secret})


@pytest.fixture
def small_ledger(tmp_path: Path) -> Path:
    write_generated_ledger(tmp_path / "small.db", 3)
    return tmp_path / "small.db"


def test_event_that_fails_for_a_moment_is_sent_again(small_ledger: Path) -> None:
    with receiver_with(503, 429) as url:
        result = run_push(small_ledger, url)

    assert (result.exit_code, result.stderr) == (0, "4 events, cursor 3.1\n")


def test_second_push_sends_only_new_changes(small_ledger: Path) -> None:
    with receiver_with() as url:
        run_push(small_ledger, url, "--cursor", "billing")
        again = run_push(small_ledger, url, "--cursor", "billing")
        other = run_push(small_ledger, url, "--cursor", "audit", "--since", "2.1")

    assert again.stderr == "0 events, cursor 3.1\n"
    assert other.stderr == "1 event, cursor 3.1\n"


@pytest.mark.parametrize("status", [302, 400, 401, 410])
def test_status_that_will_not_change_ends_the_push_at_once(small_ledger: Path, status: int) -> None:
    with receiver_with(status) as url:
        result = run_push(small_ledger, url)

    assert result.exit_code == 1
    assert f"the receiver did not accept event req_00000000 (status {status}); correct the receiver" in result.stderr
    assert read_column(small_ledger, "SELECT name FROM cursors") == []


def test_receiver_that_does_not_run_ends_the_push_after_a_time(small_ledger: Path) -> None:
    result = run_push(small_ledger, f"http://127.0.0.1:{find_free_port()}/", "--give-up", "0.1")

    assert result.exit_code == 1
    assert "see that the receiver runs, then push again" in result.stderr


@pytest.mark.parametrize(
    ("url", "secret", "fault"),
    [
        ("http://example.com/", SECRET, "--to: a receiver's URL is https, or http on this machine"),
        ("https://user:pass@example.com/", SECRET, "without credentials"),
        ("https://example.com/", "", "--secret-env RECEIVER_SECRET: the environment variable is not set"),
        ("https://example.com/", "hunter2", "--secret-env RECEIVER_SECRET: a webhook's secret begins with whsec_"),
    ],
)
def test_unsafe_receiver_is_a_usage_error(small_ledger: Path, url: str, secret: str, fault: str) -> None:
    result = run_push(small_ledger, url, secret=secret)

    assert result.exit_code == 2
    assert fault in result.stderr
    assert "hunter2" not in result.stderr
