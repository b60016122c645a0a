"""Faults of the file raise StoreError; faults of a value do not."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.dialect import Insert
from tornado_proxy.ledger.sqlite.database import SqliteDatabase, describe


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteDatabase]:
    with contextlib.closing(SqliteDatabase(tmp_path / "ledger.db", fsync=False)) as connection:
        connection.run_script("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT;")
        yield connection


def test_tables_and_columns_are_listed(db: SqliteDatabase) -> None:
    assert db.list_tables() == {"numbers"}
    assert db.list_columns("numbers") == {"n"}


def test_second_connection_of_a_process_keeps_the_locks_of_the_first(db: SqliteDatabase, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM numbers'); db.close()"

    with contextlib.closing(SqliteDatabase(path, fsync=False)) as second:
        second.fetch_rows("SELECT n FROM numbers")
        # The last process that closes the file deletes the -wal file; without their locks, that would be this one.
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=60)

        assert path.with_name("ledger.db-wal").exists()


def test_transaction_is_rolled_back_on_an_exception(db: SqliteDatabase) -> None:
    def insert_and_fail() -> None:
        with db.transaction():
            db.run("INSERT INTO numbers VALUES (1)")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised by the test itself
        insert_and_fail()

    assert db.fetch_rows("SELECT n FROM numbers") == []


def test_failed_script_leaves_no_transaction_open(db: SqliteDatabase) -> None:
    with pytest.raises(StoreError, match="no such table"):
        db.run_script("INSERT INTO numbers VALUES (1); INSERT INTO missing VALUES (1);")

    assert db.fetch_rows("SELECT n FROM numbers") == []
    db.check()


@pytest.mark.parametrize("value", ["text", 2**70, "half \udc80"])
def test_fault_of_a_value_is_not_a_store_error(db: SqliteDatabase, value: object) -> None:
    with pytest.raises((sqlite3.Error, OverflowError, UnicodeEncodeError)):
        db.run("INSERT INTO numbers VALUES (?)", (value,))


def test_fault_of_inserted_rows_ends_the_transaction(db: SqliteDatabase) -> None:
    def insert(table: str, value: object) -> None:
        with db.transaction():
            db.insert(Insert("numbers", ("n",), "n"), [(1,)])
            db.insert(Insert(table, ("n",), "n"), [(value,)])

    with pytest.raises(StoreError, match="no such table"):
        insert("missing", 2)
    with pytest.raises(sqlite3.IntegrityError):
        insert("numbers", "text")

    assert db.fetch_rows("SELECT n FROM numbers") == []


def test_rows_are_deleted_by_their_column(db: SqliteDatabase) -> None:
    with db.transaction():
        db.insert(Insert("numbers", ("n",), "n"), [(1,), (2,), (3,)])
        db.delete("numbers", "n", [1, 3])

    assert db.fetch_rows("SELECT n FROM numbers") == [(2,)]


def test_locked_file_is_a_store_error(tmp_path: Path, db: SqliteDatabase) -> None:
    db.run("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreError, match="another program holds the file"):
            db.check()


def test_replaced_file_is_a_store_error(tmp_path: Path, db: SqliteDatabase) -> None:
    (tmp_path / "ledger.db").rename(tmp_path / "aside.db")
    (tmp_path / "ledger.db").touch()

    with pytest.raises(StoreError, match="was replaced by another file"):
        db.check()


def test_emptied_file_is_a_store_error(tmp_path: Path, db: SqliteDatabase) -> None:
    db.check()
    (tmp_path / "ledger.db").write_bytes(b"")

    with pytest.raises(StoreError, match="is empty"):
        db.check()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (sqlite3.OperationalError("database or disk is full"), "free space on it"),
        (sqlite3.OperationalError("disk I/O error"), "free space on it"),
        (OSError(27, "File too large"), "free space on it"),
        (FileNotFoundError(2, "No such file or directory"), "put it back, or restart the server"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "check the owner and mode"),
        (PermissionError(13, "Permission denied"), "check the owner and mode"),
        (sqlite3.OperationalError("database is locked"), "end what keeps it locked"),
        (sqlite3.DatabaseError("file is not a database"), "restore a backup"),
        (sqlite3.OperationalError("no such table: records"), "no such table: records"),
    ],
)
def test_fault_is_described_with_its_remedy(error: Exception, remedy: str) -> None:
    text = describe(Path("ledger.db"), error)

    assert text.startswith("ledger.db: ")
    assert remedy in text


@pytest.mark.parametrize("reader_is_closed", [True, False], ids=["reader closes", "reader ends its transaction"])
def test_wal_that_grew_while_a_program_read_shrinks_when_it_has_ended(
    reader_is_closed: bool, tmp_path: Path, db: SqliteDatabase
) -> None:
    wal = tmp_path / "ledger.db-wal"
    db.run("CREATE TABLE texts (t TEXT) STRICT")
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM texts").fetchall()
        for _ in range(20):
            db.run("INSERT INTO texts VALUES (?)", ("x" * 1_000_000,))
        assert wal.stat().st_size > 20_000_000
        if reader_is_closed:
            reader.close()
        else:
            reader.execute("COMMIT")

        for number in range(3):
            db.run("INSERT INTO numbers VALUES (?)", (number,))

        assert wal.stat().st_size <= 4 * 1024 * 1024
