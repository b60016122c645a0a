"""The tables of a ledger, on each database."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import RequestIntent
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.database import ReadTimeout
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records, sum_records
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult


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


def write_records(store: LedgerUnderTest, *intents: RequestIntent) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        for intent in intents:
            await ledger.begin(intent)
            await ledger.finish(make_record(intent))
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
def test_records_and_settlements_cannot_be_changed(store: LedgerUnderTest, sql: str) -> None:
    write_records(store, make_intent("r1"))

    with connected(store) as db:
        db.execute(
            "INSERT INTO settlements (request_id, total, settled_at) VALUES ('r1', '1', '2026-03-02T10:00:00.000Z')"
        )
        with pytest.raises((sqlite3.DatabaseError, psycopg.Error), match="are append-only"):
            db.execute(sql)

    assert [row["total"] for row in store.records()] == ["1"]


@pytest.mark.parametrize("name", ["ad\udc80a", "ad\0a"], ids=["half of a surrogate pair", "NUL"])
def test_unstorable_name_loses_no_record(store: LedgerUnderTest, name: str) -> None:
    unstorable = make_intent("r2", caller=Caller("project-a", participant=name))

    write_records(store, make_intent("r1"), unstorable, make_intent("r3"))

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


def test_records_are_read_oldest_first_then_in_the_order_of_writing(store: LedgerUnderTest) -> None:
    later = make_intent("a", started_at=make_intent("x").started_at.replace(hour=11))
    write_records(store, later, make_intent("c"), make_intent("b"))

    assert [row["request_id"] for row in store.records()] == ["c", "b", "a"]


def test_sqlite_reads_records_in_order_without_sorting(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write_records(LedgerUnderTest(path, fsync=False), make_intent("r1"))

    with make_backend(path).read() as read:
        plan = [step[3] for step in read("EXPLAIN QUERY PLAN SELECT * FROM bills ORDER BY started_at, seq", ())]

    assert plan[0] == "MERGE (UNION ALL)"
    assert "SCAN r USING INDEX records_time" in plan
    assert [step for step in plan[: plan.index("RIGHT")] if "TEMP B-TREE" in step] == []


def test_hundreds_of_records_in_one_transaction_are_all_stored(store: LedgerUnderTest) -> None:
    # For SQLite, 301 rows are statements of 256, 32, 4 and 1 rows.
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        intents = [make_intent(f"r{number:03}", caller=CALLER) for number in range(301)]
        await asyncio.gather(*(ledger.begin(intent) for intent in intents))
        await asyncio.gather(
            *(ledger.finish(make_record(intent, object_id=f"o-{intent.request_id}")) for intent in intents)
        )
        assert await ledger.owner_of("openai", "o-r300") == "project-a"
        await ledger.close()

    asyncio.run(run())

    assert [row["request_id"] for row in store.records()] == [f"r{number:03}" for number in range(301)]


def test_sums_and_usage_are_the_same_on_each_database(store: LedgerUnderTest) -> None:
    other = make_intent("r2", caller=Caller("project-b", user="eve@example.com"), model_requested=None)

    async def run() -> UsageResult:
        ledger = store.make()
        await ledger.open()
        await asyncio.gather(
            ledger.finish(make_record(make_intent("r1"))), ledger.finish(make_record(other, model=None))
        )
        await ledger.begin(make_intent("r3"))
        await ledger.close()
        again = store.make()
        await again.open()
        query = UsageQuery(UsageFilter(since="2026-03-02T00:00:00.000Z"), Interval.DAY, ("participant",))
        result = await again.usage(query)
        await again.close()
        return result

    result = asyncio.run(run())

    assert (result.requests, result.total, result.unsettled) == (3, Decimal("0.004725"), 1)
    assert {row.start for row in result.rows} == {"2026-03-02T00:00:00.000Z"}
    sums = sum_records(
        make_backend(store.address), UsageFilter(until="2026-03-03T00:00:00.000Z"), ("day", "project", "model")
    )
    assert [(row.group, row.requests, row.total, row.unsettled) for row in sums] == [
        (("2026-03-02", "project-a", "gpt-5.4"), 1, Decimal(0), 1),
        (("2026-03-02", "project-a", "gpt-5.4-2026-03-05"), 1, Decimal("0.0023625"), 0),
        (("2026-03-02", "project-b", None), 1, Decimal("0.0023625"), 0),
    ]
    assert [
        row.requests for row in sum_records(make_backend(store.address), UsageFilter(user="eve@example.com"), ())
    ] == [1]


def test_query_that_takes_too_long_is_cancelled(store: LedgerUnderTest) -> None:
    write_records(store, *(make_intent(f"r{number}") for number in range(3)))

    def run_query() -> None:
        with make_backend(store.address).read(lambda: True) as read:
            list(read(f"SELECT count(*) FROM {', '.join(f'bills b{number}' for number in range(12))}", ()))  # noqa: S608

    with pytest.raises(ReadTimeout):
        run_query()
    assert len(store.records()) == 3


def test_read_connection_cannot_write(store: LedgerUnderTest) -> None:
    write_records(store, make_intent("r1"))

    def change() -> None:
        with make_backend(store.address).read() as read:
            list(read("INSERT INTO meta (key, value) VALUES ('a', 'b') RETURNING key", ()))

    with pytest.raises(LedgerUnavailable):
        change()


def test_records_held_by_a_failing_ledger_are_stored_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.begin(make_intent("r1"))
        await ledger.begin(make_intent("r2"))
        path.rename(tmp_path / "aside.db")
        async with asyncio.timeout(30):
            while ledger.healthy:  # noqa: ASYNC110  # the writer thread checks on its own schedule
                await asyncio.sleep(0.01)
        ledger.finish(make_record(make_intent("r1")))
        await ledger.close()
        (tmp_path / "aside.db").rename(path)
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    basis = {row["request_id"]: row["basis"] for row in read_records(make_backend(path), UsageFilter())}
    assert basis == {"r1": "reported", "r2": "unsettled"}
    assert [file.name for file in tmp_path.iterdir() if "-writer-" in file.name] == []
