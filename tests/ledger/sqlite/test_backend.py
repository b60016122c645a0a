"""Connections to one ledger file, for writing and for reading."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.sqlite.backend import SqliteBackend


def test_reconnection_refuses_another_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    backend = SqliteBackend(path, fsync=False)
    backend.connect(create=True).close()
    backend.connect(create=False).close()

    path.rename(tmp_path / "aside.db")
    path.touch()

    with pytest.raises(StoreError, match="was replaced by another file while it was open"):
        backend.connect(create=False)


def test_reconnection_makes_no_tables_in_an_emptied_file(tmp_path: Path) -> None:
    """A backup that is copied into the place of a damaged file empties it first."""
    path = tmp_path / "ledger.db"
    backend = SqliteBackend(path, fsync=False)
    backend.connect(create=True).close()
    backup = path.read_bytes()

    path.write_bytes(b"")
    # That of the budgets' thread, and of others, has not opened the file before.
    for reconnecting in (backend, SqliteBackend(path, fsync=False)):
        with pytest.raises(StoreError, match="is empty; restore a backup"):
            reconnecting.connect(create=False)
    assert path.read_bytes() == b""

    path.write_bytes(backup)
    backend.connect(create=False).close()


def test_reconnection_does_not_create_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    backend = SqliteBackend(path, fsync=False)
    backend.connect(create=True).close()

    path.unlink()

    for reconnecting in (backend, SqliteBackend(path, fsync=False)):
        with pytest.raises(StoreError, match="the file is missing"):
            reconnecting.connect(create=False)
    assert not path.exists()


def make_folder(path: Path) -> None:
    path.mkdir()


def write_text(path: Path) -> None:
    path.write_text("no database, and longer than the header of one")


@pytest.mark.parametrize(
    ("make_obstacle", "message"),
    [(make_folder, "cannot be opened for writing"), (write_text, "is damaged or no ledger")],
)
def test_unusable_file_is_reported_with_a_remedy(
    tmp_path: Path, make_obstacle: Callable[[Path], None], message: str
) -> None:
    make_obstacle(tmp_path / "ledger.db")

    with pytest.raises(StoreError, match=message):
        SqliteBackend(tmp_path / "ledger.db", fsync=False).connect(create=True)


def read_all(path: Path) -> list[object]:
    with SqliteBackend(path, fsync=False).read() as read:
        return list(read("SELECT request_id FROM bills", ()))


def test_missing_file_and_other_databases_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="there is no ledger; the server makes it at its first start"):
        read_all(tmp_path / "ledger.db")
    write_text(tmp_path / "text.db")
    with pytest.raises(LedgerUnavailable, match="cannot be read as a ledger"):
        read_all(tmp_path / "text.db")


def test_ledger_of_an_earlier_version_cannot_be_read_until_a_server_adds_its_tables(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("CREATE TABLE records (request_id TEXT)")

    with pytest.raises(LedgerUnavailable, match="no such table: bills; a server of this version adds it at its start"):
        read_all(tmp_path / "ledger.db")


def test_records_are_read_while_a_transaction_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    LedgerUnderTest(path, fsync=False).write(make_intent("r1"))

    with contextlib.closing(SqliteBackend(path, fsync=False).connect(create=True)) as db, db.transaction():
        db.run("INSERT INTO meta (key, value) VALUES ('a', 'b')")
        assert read_all(path) == [("r1",)]
