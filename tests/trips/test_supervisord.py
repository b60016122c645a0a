"""The server under the real supervisord, with the configuration that the program brings."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx

from tests.harness import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    OTHER_SIGNING_SECRET,
    PATIENCE_S,
    ROOT,
    SIGNING_SECRET,
    mint,
    write_config,
)
from tornado_proxy.simulator import Simulator, running_simulator

_CALLS = 20
_SLOW = "[[sim first-delay-ms=1500]]"


class Supervised:
    """A folder with conf/ and var/, and supervisord over it."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        for name in ("conf", "var", "bin"):
            (folder / name).mkdir()
        shutil.copy(ROOT / "conf" / "supervisord.conf", folder / "conf")
        write_config(folder / "conf", upstream)
        program = folder / "bin" / "tornado-proxy"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tornado_proxy "$@"\n')
        program.chmod(0o755)

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

    def address(self, start: int) -> str:
        """Where the server listens since its `start`-th start; waits for it."""
        log = self.folder / "var" / "tornado-proxy.log"
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            lines = log.read_text().splitlines() if log.exists() else []
            found = [line.partition("clients: ")[2] for line in lines if line.startswith("clients: ")]
            if len(found) >= start:
                return found[start - 1]
            time.sleep(0.05)
        raise AssertionError(f"no start number {start} in the log")


@contextlib.contextmanager
def supervised(upstream: str) -> Iterator[Supervised]:
    # A short path: the name of a socket has at most some 100 bytes.
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        one = Supervised(Path(folder), upstream)
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
        deadline = time.monotonic() + PATIENCE_S
        while len(simulator.requests) < _CALLS and time.monotonic() < deadline:
            time.sleep(0.02)

        said = one.control("restart", "tornado-proxy")

        assert [call.result() for call in calls] == [200] * _CALLS
        assert "tornado-proxy: started" in said
        assert ask(one.address(2), "Hello") == 200
        assert "RUNNING" in one.control("status")
        assert "stopped" in one.control("stop", "tornado-proxy")
        ledger = f"sqlite:///{one.folder}/conf/ledger.db"
        printed = subprocess.run(
            [sys.executable, "-m", "tornado_proxy", "usage", "--ledger", ledger, "--format", "jsonl"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        records = printed.stdout.splitlines()

    assert len(records) == _CALLS + 1
    assert all('"basis": "reported"' in record or '"basis":"reported"' in record for record in records)
