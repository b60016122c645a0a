"""What both databases must do with what is written to them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.ledger.calls import CALLER, intent, record
from tests.ledger.conftest import LedgerUnderTest
from tornado_proxy.domain.call import CallIntent
from tornado_proxy.domain.identity import Caller


@contextlib.contextmanager
def connected(store: LedgerUnderTest) -> Iterator[Any]:
    """A connection of another program, that commits each statement."""
    if isinstance(store.address, Path):
        with contextlib.closing(sqlite3.connect(store.address, isolation_level=None)) as file:
            yield file
        return
    with psycopg.connect(store.address.url, autocommit=True) as db:
        db.execute("SET search_path = tornado_proxy")
        yield db


def write(store: LedgerUnderTest, *intents: CallIntent) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        for one in intents:
            await ledger.begin(one)
            await ledger.finish(record(one))
        await ledger.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE records SET total = '0'",
        "DELETE FROM records",
        "UPDATE settlements SET total = '0'",
        "DELETE FROM settlements",
    ],
)
def test_nobody_changes_what_is_written(store: LedgerUnderTest, sql: str) -> None:
    write(store, intent("r1"))

    with connected(store) as db:
        db.execute(
            "INSERT INTO settlements (request_id, total, settled_at) VALUES ('r1', '1', '2026-03-02T10:00:00.000Z')"
        )
        with pytest.raises((sqlite3.DatabaseError, psycopg.Error), match="are append-only"):
            db.execute(sql)

    assert [one["total"] for one in store.records()] == ["1"]


@pytest.mark.parametrize("name", ["ad\udc80a", "ad\0a"], ids=["half of a surrogate pair", "NUL"])
def test_a_name_that_no_store_can_hold_costs_no_record(store: LedgerUnderTest, name: str) -> None:
    strange = intent("r2", caller=Caller("project-a", participant=name))

    write(store, intent("r1"), strange, intent("r3"))

    kept = {one["request_id"]: one["participant"] for one in store.records()}
    assert kept.keys() == {"r1", "r2", "r3"}
    assert kept["r2"] in ("ad?a", name)


def test_a_name_that_no_store_can_hold_does_not_hide_a_crash(store: LedgerUnderTest) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await ledger.begin(intent("r1", caller=Caller("project-a", participant="ad\udc80a")))
        await ledger.close()
        again = store.make()
        await again.open()
        await again.close()

    asyncio.run(run())

    assert [(one["participant"], one["basis"]) for one in store.records()] == [("ad?a", "unsettled")]


def test_the_record_of_a_process_that_was_called_dead_takes_the_place_of_its_lost_intent(
    store: LedgerUnderTest,
) -> None:
    async def run() -> list[list[tuple[str, str]]]:
        ledger = store.make()
        await ledger.open()
        await ledger.begin(intent("r1"))
        seen = []
        with connected(store) as db:
            # As another process leaves it that has found this one dead, when it was not.
            columns = "request_id, project_id, provider, started_at, writer, lost_at"
            db.execute(f"INSERT INTO intents ({columns}) VALUES ('r2', 'p', 'openai', '1', 'w', '2')")  # noqa: S608
            seen.append([(one["request_id"], one["basis"]) for one in store.records()])
            await ledger.finish(record(intent("r2")))
            seen.append([(one["request_id"], one["basis"]) for one in store.records()])
        await ledger.finish(record(intent("r1")))
        await ledger.close()
        return seen

    assert asyncio.run(run()) == [[("r2", "unsettled")], [("r2", "reported")]]
    assert sorted(one["request_id"] for one in store.records()) == ["r1", "r2"]


def test_records_come_oldest_first_and_in_the_order_they_were_written(store: LedgerUnderTest) -> None:
    later = intent("a", started_at=intent("x").started_at.replace(hour=11))
    write(store, later, intent("c"), intent("b"))

    assert [one["request_id"] for one in store.records()] == ["c", "b", "a"]


def test_a_bill_of_hundreds_of_calls_is_whole(store: LedgerUnderTest) -> None:
    # 301 rows are runs of 256, 32, 4 and 1 of SQLite's statements.
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        calls = [intent(f"r{number:03}", caller=CALLER) for number in range(301)]
        await asyncio.gather(*(ledger.begin(one) for one in calls))
        await asyncio.gather(*(ledger.finish(record(one, object_id=f"o-{one.request_id}")) for one in calls))
        assert await ledger.owner_of("openai", "o-r300") == "project-a"
        await ledger.close()

    asyncio.run(run())

    assert [one["request_id"] for one in store.records()] == [f"r{number:03}" for number in range(301)]
