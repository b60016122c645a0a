"""Kills processes that write a ledger, for some minutes: python -m tests.ledger.rounds --minutes 10 [--postgresql]

Three processes write one ledger.  Again and again one of them is killed at a random time and another one is started;
with --postgresql the server crashes now and then too.  At the end every promise that a process printed must hold: each
request has one entry, and each durable record is in the ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT
from tests.ledger.child import parse_address, write_line
from tests.postgres_server import PostgresServer, running_postgres
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records

#: Processes that write at the same time.
_PROCESSES = 3

#: Seconds until a live process has found the dead ones (writer_thread._FIRST_SEARCH_S), doubled.
_SEARCH_S = 10


class WritingProcess:
    """A child process, and the lines that it printed."""

    def __init__(self, ledger: str, name: str) -> None:
        command = [sys.executable, "-m", "tests.ledger.child", ledger, "load", name]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.lines.extend(line.strip() for line in lines if line.endswith("\n"))

    def kill(self) -> None:
        """Kill the process and read the rest of its lines."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


def run_storm(ledger: str, deadline: float, server: PostgresServer | None) -> list[str]:
    """Start and kill processes until a deadline (monotonic seconds); return all lines that they printed."""
    lines: list[str] = []
    processes: list[WritingProcess] = []
    number = 0
    while time.monotonic() < deadline:
        while len(processes) < _PROCESSES:
            number += 1
            processes.append(WritingProcess(ledger, f"p{number}"))
        time.sleep(random.uniform(0.3, 3.0))
        if server is not None and random.random() < 0.2:
            # A fast shutdown, which rolls back transactions, or an immediate one, which is a crash.
            server.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(random.uniform(0, 2))
            server.start()
        victim = processes.pop(random.randrange(len(processes)))
        victim.kill()
        lines += victim.lines
    for process in processes:
        process.kill()
        lines += process.lines
    return lines


def find_broken_promises(ledger: str, lines: list[str]) -> list[str]:
    """Return one line for each promise that the ledger does not keep."""
    survivor = WritingProcess(ledger, "last")  # marks the open intents of the others as lost
    time.sleep(_SEARCH_S)
    survivor.kill()
    WritingProcess(ledger, "end").kill()
    records = read_records(make_backend(parse_address(ledger)), UsageFilter())
    entries = [(str(record["request_id"]), record["basis"]) for record in records]
    basis = dict(entries)
    begun = {line.split()[1] for line in lines if line.startswith("begun ")}
    finished = {line.split()[1] for line in lines if line.startswith("finished ")}
    doubled = [request_id for request_id, count in Counter(key for key, _ in entries).items() if count > 1]
    unsettled = sum(value == "unsettled" for value in basis.values())
    write_line(f"{len(begun)} begun, {len(finished)} finished; {len(entries)} entries, {unsettled} of them unsettled")
    return [
        *(f"lost: {request_id}" for request_id in begun - basis.keys()),
        *(f"not a record: {request_id}" for request_id in finished if basis.get(request_id) != "reported"),
        *(f"twice: {request_id}" for request_id in doubled),
    ]


@contextlib.contextmanager
def new_ledger(folder: Path, *, postgresql: bool) -> Iterator[tuple[str, PostgresServer | None]]:
    """Yield the LEDGER argument of the children for an empty database, and its server."""
    if not postgresql:
        yield str(folder / "ledger.db"), None
        return
    with running_postgres() as server:
        yield f"{server.new_database()} {folder / 'journal'}", server


def main() -> int:
    """Run the rounds; return 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        new_ledger(Path(folder), postgresql=options.postgresql) as (ledger, server),
    ):
        lines = run_storm(ledger, time.monotonic() + options.minutes * 60, server)
        broken = find_broken_promises(ledger, lines)
    write_line("\n".join(broken) or "all promises kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
