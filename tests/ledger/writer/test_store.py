"""The tables of a ledger, on each database."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import ObjectOwner
from tornado_proxy.ledger.sqlite.backend import SqliteBackend
from tornado_proxy.ledger.sqlite.database import SqliteDatabase
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer.store import Store


@contextlib.contextmanager
def connected(store: LedgerUnderTest) -> Iterator[Any]:
    """Yield a connection of another program, in autocommit mode."""
    if isinstance(store.address, Path):
        with contextlib.closing(sqlite3.connect(store.address, isolation_level=None)) as file:
            yield file
        return
    with psycopg.connect(store.address.url, autocommit=True) as db:
        db.execute("SET search_path = tornado_proxy")
        yield db


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE records SET total = '0'",
        "DELETE FROM records",
        "UPDATE settlements SET total = '0'",
        "DELETE FROM settlements",
        "UPDATE given_up SET total = '0'",
        "DELETE FROM given_up",
    ],
)
def test_records_and_settlements_cannot_be_changed(store: LedgerUnderTest, sql: str) -> None:
    store.write(make_intent("r1"))

    with connected(store) as db:
        for table in ("settlements", "given_up"):
            values = "('r1', '1', '2026-03-02T10:00:00.000Z')"
            db.execute(f"INSERT INTO {table} (request_id, total, settled_at) VALUES {values}")  # noqa: S608  # names of ours
        with pytest.raises((sqlite3.DatabaseError, psycopg.Error), match="are append-only"):
            db.execute(sql)

    assert [row["total"] for row in store.records()] == ["1"]


@pytest.mark.parametrize("name", ["ad\udc80a", "ad\0a"], ids=["half of a surrogate pair", "NUL"])
def test_unstorable_name_loses_no_record(store: LedgerUnderTest, name: str) -> None:
    unstorable = make_intent("r2", caller=Caller("project-a", participant=name))

    store.write(make_intent("r1"), unstorable, make_intent("r3"))

    participants = {row["request_id"]: row["participant"] for row in store.records()}
    assert participants.keys() == {"r1", "r2", "r3"}
    assert participants["r2"] in ("ad?a", name)


def test_unstorable_name_does_not_hide_a_crash(store: LedgerUnderTest) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await ledger.begin(make_intent("r1", caller=Caller("project-a", participant="ad\udc80a")))
        await ledger.close()
        again = store.make()
        await again.open()
        await again.close()

    asyncio.run(run())

    assert [(row["participant"], row["basis"]) for row in store.records()] == [("ad?a", "unsettled")]


def test_record_replaces_a_lost_intent_of_a_process_that_lives(
    store: LedgerUnderTest,
) -> None:
    async def run() -> list[list[tuple[str, str]]]:
        ledger = store.make()
        await ledger.open()
        await ledger.begin(make_intent("r1"))
        snapshots = []
        with connected(store) as db:
            # As another process leaves it that has found this one dead by mistake.
            columns = "request_id, project_id, provider, started_at, writer, lost_at"
            db.execute(f"INSERT INTO intents ({columns}) VALUES ('r2', 'p', 'openai', '1', 'w', '2')")  # noqa: S608
            snapshots.append([(row["request_id"], row["basis"]) for row in store.records()])
            await ledger.finish(make_record(make_intent("r2")))
            snapshots.append([(row["request_id"], row["basis"]) for row in store.records()])
        await ledger.finish(make_record(make_intent("r1")))
        await ledger.close()
        return snapshots

    assert asyncio.run(run()) == [[("r2", "unsettled")], [("r2", "reported")]]
    assert sorted(row["request_id"] for row in store.records()) == ["r1", "r2"]


def test_hundreds_of_records_in_one_transaction_are_all_stored(store: LedgerUnderTest) -> None:
    # For SQLite, 301 rows are statements of 256, 32, 8, 4 and 1 rows.
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        intents = [make_intent(f"r{number:03}", caller=CALLER) for number in range(301)]
        await asyncio.gather(*(ledger.begin(intent) for intent in intents))
        await asyncio.gather(
            *(ledger.finish(make_record(intent, object_id=f"o-{intent.request_id}")) for intent in intents)
        )
        assert await ledger.owner_of("openai", "o-r300") == ObjectOwner("project-a")
        await ledger.close()

    asyncio.run(run())

    assert [row["request_id"] for row in store.records()] == [f"r{number:03}" for number in range(301)]


class _TracedBackend(SqliteBackend):
    """An SQLite file whose connections note the statements that they run, with their values."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, fsync=False)
        self.statements: list[str] = []

    def connect(self, *, create: bool) -> SqliteDatabase:
        database = super().connect(create=create)
        database._db.set_trace_callback(self.statements.append)
        return database


@pytest.mark.parametrize("search", ["the next ones", "one object"])
def test_sqlite_finds_pending_requests_by_their_index_without_reading_all_records(tmp_path: Path, search: str) -> None:
    path = tmp_path / "ledger.db"
    backend = _TracedBackend(path)
    opened = Store(backend, ProcessLocks(path))
    if search == "one object":
        opened.find_pending("openai", "o-r1")
    else:
        opened.list_pending(50, 0)
    opened.close()
    (query,) = [sql for sql in backend.statements if sql.startswith("SELECT") and "basis = 'pending'" in sql]

    with contextlib.closing(sqlite3.connect(path)) as db:
        plan = [step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {query}")]

    assert plan[0] in {"SCAN records USING INDEX records_pending", "SCAN records USING INDEX records_pending_time"}
