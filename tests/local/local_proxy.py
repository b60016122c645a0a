"""A running `tornado-proxy local`, as a program on the machine sees it."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.forked_program import ForkedProgram
from tests.harness import POLL_S, TIMEOUT_S, read_usage
from tests.local.machine import Machine


@dataclass
class LocalProxy:
    """The process, its URL and bearer, and the lines of its standard output so far."""

    process: subprocess.Popen[str] | ForkedProgram
    machine: Machine
    base_url: str = ""
    bearer: str = ""
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.bearer}"}

    def read_records(self, count: int, **members: object) -> list[dict[str, Any]]:
        """Return the records of the local ledger with these members; wait until there are `count`."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            records = [
                record
                for record in read_usage(f"sqlite:///{self.machine.state}/ledger.db")
                if all(record[name] == value for name, value in members.items())
            ]
            if len(records) >= count or time.monotonic() > deadline:
                return records
            time.sleep(POLL_S)

    def stop(self) -> int:
        """Stop the proxy as Ctrl+C does; return its exit status."""
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def running_local(machine: Machine, *arguments: str, **environment: str) -> Iterator[LocalProxy]:
    process = machine.start("local", "--port", "0", *arguments, **environment)
    local = LocalProxy(process, machine)
    threads = [
        threading.Thread(target=collect, args=(stream, lines))
        for stream, lines in ((process.stdout, local.lines), (process.stderr, local.errors))
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for_introduction(local)
        yield local
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT_S)
        for thread in threads:
            thread.join(TIMEOUT_S)


def collect(stream: Any, lines: list[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line.rstrip("\n"))


def wait_for_introduction(local: LocalProxy) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        shown = [*local.lines, *local.errors]
        if any(line.startswith("unset ") for line in shown):
            break
        assert local.process.poll() is None, shown
        assert time.monotonic() < deadline, shown
        time.sleep(POLL_S)
    variables = dict(line.removeprefix("export ").split("=", 1) for line in shown if line.startswith("export "))
    local.base_url = variables["ANTHROPIC_BASE_URL"].removesuffix("/anthropic")
    local.bearer = variables["OPENAI_API_KEY"]
