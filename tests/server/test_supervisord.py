"""The server under the real supervisord, with the configuration that the program brings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    OTHER_SIGNING_SECRET,
    ROOT,
    SIGNING_SECRET,
    TIMEOUT_S,
    mint,
    wait_until,
    write_config,
)
from tests.server.blocking_provider import chat, running_blocking_provider
from tests.server.load import Load
from tornado_proxy.simulator import Simulator, running_simulator

_CALLS = 20

#: Calls that are under way when the first process is restarted.
_HELD = 8
_SLOW = "[[sim first-delay-ms=1500]]"


class Supervised:
    """A folder with conf/ and var/, and supervisord over it."""

    def __init__(self, folder: Path, upstream: str, **config: Any) -> None:
        self.folder = folder
        for name in ("conf", "var", "bin"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "conf" / "supervisord.conf", folder / "conf")
        write_config(folder / "conf", upstream, **config)
        program = folder / "bin" / "tornado-proxy"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tornado_proxy "$@"\n')
        program.chmod(0o755)

    def several(self, processes: int) -> None:
        """Make the changes that conf/supervisord.conf names for more than one process."""
        path = self.folder / "conf" / "supervisord.conf"
        text = path.read_text()
        for before, after in (
            ("numprocs = 1", f"numprocs = {processes}"),
            ("process_name = tornado-proxy", "process_name = tornado-proxy_%(process_num)d"),
            ("tornado-proxy.log", "tornado-proxy_%(process_num)d.log"),
            ("tornado-proxy.out", "tornado-proxy_%(process_num)d.out"),
            ("startsecs = 2", "startsecs = 0"),
        ):
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        path.write_text(text)

    def run(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TEST_OPENAI_KEY": OPENAI_KEY,
            "TEST_ANTHROPIC_KEY": ANTHROPIC_KEY,
            "TEST_SIGNING_SECRET": SIGNING_SECRET,
            "TEST_OTHER_SIGNING_SECRET": OTHER_SIGNING_SECRET,
        }
        command = [sys.executable, "-W", "ignore", "-m", module, "-c", "conf/supervisord.conf", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def control(self, *arguments: str) -> str:
        """One command of supervisorctl, to its end."""
        return self.run("supervisor.supervisorctl", *arguments).communicate(timeout=60)[0]

    def read_records(self) -> list[dict[str, Any]]:
        """What the ledger holds."""
        ledger = f"sqlite:///{self.folder}/conf/ledger.db"
        printed = subprocess.run(
            [sys.executable, "-m", "tornado_proxy", "usage", "--ledger", ledger, "--format", "jsonl"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        return [json.loads(line) for line in printed.stdout.splitlines()]

    def address(self, start: int, name: str = "tornado-proxy") -> str:
        """Where a process listens since its `start`-th start; waits for it."""
        log = self.folder / "var" / f"{name}.log"
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            lines = log.read_text().splitlines() if log.exists() else []
            found = [line.partition("clients: ")[2] for line in lines if line.startswith("clients: ")]
            if len(found) >= start:
                return found[start - 1]
            time.sleep(0.05)
        raise AssertionError(f"no start number {start} in the log")


@contextlib.contextmanager
def supervised(upstream: str, processes: int = 1, **config: Any) -> Iterator[Supervised]:
    # A short path: the name of a socket has at most some 100 bytes.
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        one = Supervised(Path(folder), upstream, **config)
        if processes > 1:
            one.several(processes)
        daemon = one.run("supervisor.supervisord", "-n")
        try:
            yield one
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)


def ask(base_url: str, text: str) -> int:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {mint()}"}
    return httpx.post(f"{base_url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code


def test_a_restart_under_load_ends_no_call_that_was_accepted_and_loses_no_record() -> None:
    simulator = Simulator(record=True)
    with running_simulator(simulator) as url, supervised(url) as one, ThreadPoolExecutor(_CALLS) as threads:
        first = one.address(1)
        calls = [threads.submit(ask, first, _SLOW) for _ in range(_CALLS)]
        deadline = time.monotonic() + TIMEOUT_S
        while len(simulator.requests) < _CALLS and time.monotonic() < deadline:
            time.sleep(0.02)

        said = one.control("restart", "tornado-proxy")

        assert [call.result() for call in calls] == [200] * _CALLS
        assert "tornado-proxy: started" in said
        assert ask(one.address(2), "Hello") == 200
        assert "RUNNING" in one.control("status")
        assert "stopped" in one.control("stop", "tornado-proxy")
        records = one.read_records()

    assert len(records) == _CALLS + 1
    assert {record["basis"] for record in records} == {"reported"}


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that only those get who share it."""
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holding.bind(("127.0.0.1", 0))
        yield holding.getsockname()[1]


def test_one_of_two_processes_is_restarted_under_load_and_no_call_fails_and_each_is_billed_once() -> None:
    names = ["tornado-proxy_0", "tornado-proxy_1"]
    with (
        reserved_port() as port,
        running_blocking_provider() as provider,
        supervised(provider.url, 2, listen={"host": "127.0.0.1", "port": port, "reuse_port": True}) as one,
        ThreadPoolExecutor(_HELD) as threads,
    ):
        for name in names:
            assert one.address(1, name) == f"http://127.0.0.1:{port}"
        held = [threads.submit(chat, f"http://127.0.0.1:{port}", f"held-{number}") for number in range(_HELD)]
        with Load(f"http://127.0.0.1:{port}", "load") as load:
            wait_until(lambda: len(provider.users) > _HELD + 50, "load")
            threading.Timer(0.5, provider.release.set).start()
            assert "started" in one.control("restart", f"tornado-proxy:{names[0]}")
            one.address(2, names[0])
            seen = len(load.succeeded)
            wait_until(lambda: len(load.succeeded) > seen + 50, "load after the restart")
        assert [call.result().status_code for call in held] == [200] * _HELD
        one.control("stop", "tornado-proxy:*")
        logs = [(one.folder / "var" / f"{name}.log").read_text() for name in names]
        records = one.read_records()

    answered = {*load.succeeded, *(f"held-{number}" for number in range(_HELD))}
    assert set(provider.users) == answered  # what a provider was asked for has come to its caller
    assert sorted(str(record["participant"]) for record in records) == sorted(answered)
    assert {(record["outcome"], record["basis"]) for record in records} == {("completed", "reported")}
    assert min(log.count('"message":"request"') for log in logs) > 0, "the kernel gave one of them nothing"
    assert [log.count('"message":"stopped"') for log in logs] == [2, 1]
