"""Kill -9 rounds for as long as you like: python -m tests.ledger.rounds --minutes 10 [--postgresql]

Three processes write one ledger.  Again and again one of them is killed at a random moment and another one started;
with --postgresql the server crashes now and then too.  At the end every promise that a process had made must be kept:
each request has one entry, and what was said to be durable is a record.
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
from tests.ledger.child import address, say
from tests.postgres_server import PostgresServer, running_postgres
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records


class Writing:
    """One process, and what it says."""

    def __init__(self, ledger: str, name: str) -> None:
        command = [sys.executable, "-m", "tests.ledger.child", ledger, "load", name]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.said.extend(line.strip() for line in lines if line.endswith("\n"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


def storm(ledger: str, until: float, server: PostgresServer | None) -> list[str]:
    """Let processes write, and die, until a moment (monotonic seconds); gives all that they said."""
    said: list[str] = []
    writing: list[Writing] = []
    number = 0
    while time.monotonic() < until:
        while len(writing) < 3:
            number += 1
            writing.append(Writing(ledger, f"p{number}"))
        time.sleep(random.uniform(0.3, 3.0))
        if server is not None and random.random() < 0.2:
            server.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(random.uniform(0, 2))
            server.start()
        victim = writing.pop(random.randrange(len(writing)))
        victim.kill()
        said += victim.said
    for one in writing:
        one.kill()
        said += one.said
    return said


def broken_promises(ledger: str, said: list[str]) -> list[str]:
    """What does not agree with what was said."""
    last = Writing(ledger, "last")  # calls what the others left lost
    time.sleep(10)
    last.kill()
    Writing(ledger, "end").kill()
    found = [
        (str(one["request_id"]), one["basis"]) for one in read_records(make_backend(address(ledger)), UsageFilter())
    ]
    basis = dict(found)
    begun = {line.split()[1] for line in said if line.startswith("begun ")}
    finished = {line.split()[1] for line in said if line.startswith("finished ")}
    twice = [one for one, count in Counter(one for one, _ in found).items() if count > 1]
    unsettled = sum(one == "unsettled" for one in basis.values())
    say(f"{len(begun)} begun, {len(finished)} finished; {len(found)} entries, {unsettled} of them unsettled")
    return [
        *(f"lost: {one}" for one in begun - basis.keys()),
        *(f"not a record: {one}" for one in finished if basis.get(one) != "reported"),
        *(f"twice: {one}" for one in twice),
    ]


@contextlib.contextmanager
def prepared(folder: Path, *, postgresql: bool) -> Iterator[tuple[str, PostgresServer | None]]:
    """A ledger for the children."""
    if not postgresql:
        yield str(folder / "ledger.db"), None
        return
    with running_postgres() as server:
        yield f"{server.new_database()} {folder / 'journal'}", server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        prepared(Path(folder), postgresql=options.postgresql) as (ledger, server),
    ):
        said = storm(ledger, time.monotonic() + options.minutes * 60, server)
        broken = broken_promises(ledger, said)
    say("\n".join(broken) or "all promises kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
