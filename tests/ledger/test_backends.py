"""A backend is chosen by the address; its read connections are the same for each database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import ReadTimeout
from tornado_proxy.ledger.postgres.backend import PostgresBackend
from tornado_proxy.ledger.sqlite.backend import SqliteBackend


def test_address_chooses_the_backend(tmp_path: Path) -> None:
    server = PostgresAddress("postgresql://proxy@db/ledger", None, tmp_path / "journal")

    file, database = make_backend(tmp_path / "ledger.db"), make_backend(server)

    assert isinstance(file, SqliteBackend)
    assert (file.name, file.files_path) == (str(tmp_path / "ledger.db"), tmp_path / "ledger.db")
    assert isinstance(database, PostgresBackend)
    assert (database.name, database.files_path) == (server.url, tmp_path / "journal" / "ledger")


@pytest.mark.parametrize(
    ("fsync", "logs_intents"),
    [
        pytest.param(False, True, id="a log line is as durable as a commit without fsync"),
        pytest.param(True, False, id="with fsync the intent is committed"),
    ],
)
def test_sqlite_logs_intents_only_without_fsync(tmp_path: Path, fsync: bool, logs_intents: bool) -> None:
    assert make_backend(tmp_path / "ledger.db", fsync=fsync).logs_intents is logs_intents


def test_postgresql_never_logs_intents(tmp_path: Path) -> None:
    assert not make_backend(PostgresAddress("postgresql://proxy@db/ledger", None, tmp_path)).logs_intents


def test_driver_is_imported_for_a_postgresql_address_only(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.ledger.backends import make_backend

sys.modules["psycopg"] = None  # its import fails
make_backend(Path("ledger.db"))
try:
    make_backend(PostgresAddress("postgresql://proxy@db/ledger", None, Path("journal")))
except LedgerUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.strip() == (
        "a PostgreSQL ledger needs the driver psycopg: pip install 'tornado-proxy[postgresql]'"
    )


def test_query_that_takes_too_long_is_cancelled(store: LedgerUnderTest) -> None:
    store.write(*(make_intent(f"r{number}") for number in range(3)))

    def run_query() -> None:
        with make_backend(store.address).read(lambda: True) as read:
            list(read(f"SELECT count(*) FROM {', '.join(f'bills b{number}' for number in range(12))}", ()))  # noqa: S608

    with pytest.raises(ReadTimeout):
        run_query()
    assert len(store.records()) == 3


def test_read_connection_cannot_write(store: LedgerUnderTest) -> None:
    store.write(make_intent("r1"))

    def change() -> None:
        with make_backend(store.address).read() as read:
            list(read("INSERT INTO meta (key, value) VALUES ('a', 'b') RETURNING key", ()))

    with pytest.raises(LedgerUnavailable):
        change()
