"""Tables are made in an empty database and extended in an older one; any other database is refused."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent, read_bills, read_rows
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner
from tornado_proxy.ledger.columns import OBJECT_COLUMNS
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.sqlite.backend import SqliteBackend

TABLES = {"meta", "intents", "records", "settlements", "given_up", "objects"}


def prepare_file(path: Path) -> frozenset[str]:
    """Prepare an SQLite file and return its tables."""
    backend = SqliteBackend(path, fsync=False)
    with contextlib.closing(backend.connect(create=True)) as db:
        prepare(db, backend)
        return db.list_tables()


def run_script(path: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(sql)


def test_empty_database_gets_all_tables(tmp_path: Path) -> None:
    assert prepare_file(tmp_path / "ledger.db") >= TABLES
    assert read_rows(tmp_path / "ledger.db", "SELECT key, value FROM meta") == [{"key": "schema_version", "value": "1"}]


def test_second_preparation_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    prepare_file(path)
    before = read_rows(path, "SELECT sql FROM sqlite_master")

    prepare_file(path)

    assert read_rows(path, "SELECT sql FROM sqlite_master") == before


@pytest.mark.parametrize("column", ["annotations", "kept_facts", "upstream_request_id"])
def test_missing_column_is_added(tmp_path: Path, column: str) -> None:
    path = tmp_path / "ledger.db"
    LedgerUnderTest(path, fsync=False).write(make_intent("r1"))
    run_script(path, f"DROP VIEW bills; ALTER TABLE records DROP COLUMN {column};")

    LedgerUnderTest(path, fsync=False).write(make_intent("r2"))

    assert [(row["request_id"], row[column]) for row in read_bills(path)] == [("r1", None), ("r2", None)]


def test_object_of_an_earlier_version_has_an_owner_and_no_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = LedgerUnderTest(path, fsync=False)
    ledger.write(make_intent("r1", key=KeyId("main", "0123456789ab")))
    drop = "; ".join(f"ALTER TABLE objects DROP COLUMN {name}" for name in OBJECT_COLUMNS[4:])
    run_script(path, f"DROP VIEW bills; {drop};")
    run_script(path, "INSERT INTO objects VALUES ('openai', 'resp_1', 'project-a', 'r1');")

    async def find_owner() -> ObjectOwner | None:
        opened = ledger.make()
        await opened.open()
        owner = await opened.owner_of("openai", "resp_1")
        await opened.close()
        return owner

    assert asyncio.run(find_owner()) == ObjectOwner("project-a")


def test_database_of_an_earlier_version_gets_the_table_of_requests_that_were_given_up(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    LedgerUnderTest(path, fsync=False).write(make_intent("r1"))
    run_script(path, "DROP VIEW bills; DROP TABLE given_up;")

    LedgerUnderTest(path, fsync=False).write(make_intent("r2"))

    assert [row["request_id"] for row in read_bills(path)] == ["r1", "r2"]
    assert prepare_file(path) >= TABLES


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    run_script(tmp_path / "ledger.db", "CREATE TABLE recipes (name TEXT)")

    with pytest.raises(StoreError, match="is a database of another program; name another one"):
        prepare_file(tmp_path / "ledger.db")


def test_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    prepare_file(tmp_path / "ledger.db")
    run_script(tmp_path / "ledger.db", "UPDATE meta SET value = '2' WHERE key = 'schema_version'")

    with pytest.raises(StoreError, match="schema 2 is newer than this program, which knows 1"):
        prepare_file(tmp_path / "ledger.db")
