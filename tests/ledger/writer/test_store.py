"""What both databases must do with what is written to them."""

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

from tests.ledger.calls import CALLER, intent, record
from tests.ledger.conftest import LedgerUnderTest
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
    """A connection of another program, that commits each statement."""
    if isinstance(store.address, Path):
        with contextlib.closing(sqlite3.connect(store.address, isolation_level=None)) as file:
            yield file
        return
    with psycopg.connect(store.address.url, autocommit=True) as db:
        db.execute("SET search_path = tornado_proxy")
        yield db


def write(store: LedgerUnderTest, *intents: RequestIntent) -> None:
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


def test_a_large_sqlite_ledger_is_read_in_order_without_being_sorted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    write(LedgerUnderTest(path, fsync=False), intent("r1"))

    with make_backend(path).read() as read:
        plan = [step[3] for step in read("EXPLAIN QUERY PLAN SELECT * FROM bills ORDER BY started_at, seq", ())]

    assert plan[0] == "MERGE (UNION ALL)"
    assert "SCAN r USING INDEX records_time" in plan
    assert [step for step in plan[: plan.index("RIGHT")] if "TEMP B-TREE" in step] == []


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


def test_sums_and_the_usage_api_say_the_same_on_each_store(store: LedgerUnderTest) -> None:
    other = intent("r2", caller=Caller("project-b", user="eve@example.com"), model_requested=None)

    async def run() -> UsageResult:
        ledger = store.make()
        await ledger.open()
        await asyncio.gather(ledger.finish(record(intent("r1"))), ledger.finish(record(other, model=None)))
        await ledger.begin(intent("r3"))
        await ledger.close()
        again = store.make()
        await again.open()
        question = UsageQuery(UsageFilter(since="2026-03-02T00:00:00.000Z"), Interval.DAY, ("participant",))
        answer = await again.usage(question)
        await again.close()
        return answer

    answer = asyncio.run(run())

    assert (answer.requests, answer.total, answer.unsettled) == (3, Decimal("0.004725"), 1)
    assert {row.start for row in answer.rows} == {"2026-03-02T00:00:00.000Z"}
    sums = sum_records(
        make_backend(store.address), UsageFilter(until="2026-03-03T00:00:00.000Z"), ("day", "project", "model")
    )
    assert [(one.group, one.requests, one.total, one.unsettled) for one in sums] == [
        (("2026-03-02", "project-a", "gpt-5.4"), 1, Decimal(0), 1),
        (("2026-03-02", "project-a", "gpt-5.4-2026-03-05"), 1, Decimal("0.0023625"), 0),
        (("2026-03-02", "project-b", None), 1, Decimal("0.0023625"), 0),
    ]
    assert [
        one.requests for one in sum_records(make_backend(store.address), UsageFilter(user="eve@example.com"), ())
    ] == [1]


def test_a_question_that_takes_too_long_is_cut_off(store: LedgerUnderTest) -> None:
    write(store, *(intent(f"r{number}") for number in range(3)))

    def ask() -> None:
        with make_backend(store.address).read(lambda: True) as read:
            list(read(f"SELECT count(*) FROM {', '.join(f'bills b{number}' for number in range(12))}", ()))  # noqa: S608

    with pytest.raises(ReadTimeout):
        ask()
    assert len(store.records()) == 3


def test_reading_changes_nothing(store: LedgerUnderTest) -> None:
    write(store, intent("r1"))

    def change() -> None:
        with make_backend(store.address).read() as read:
            list(read("INSERT INTO meta (key, value) VALUES ('a', 'b') RETURNING key", ()))

    with pytest.raises(LedgerUnavailable):
        change()


def test_what_waits_when_a_failing_ledger_is_closed_is_stored_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def run() -> None:
        ledger = make_ledger(path)
        await ledger.open()
        await ledger.begin(intent("r1"))
        await ledger.begin(intent("r2"))
        path.rename(tmp_path / "aside.db")
        async with asyncio.timeout(30):
            while ledger.healthy:  # noqa: ASYNC110  # the ledger finds it out in its own time
                await asyncio.sleep(0.01)
        ledger.finish(record(intent("r1")))
        await ledger.close()
        (tmp_path / "aside.db").rename(path)
        again = make_ledger(path)
        await again.open()
        await again.close()

    asyncio.run(run())

    found = {one["request_id"]: one["basis"] for one in read_records(make_backend(path), UsageFilter())}
    assert found == {"r1": "reported", "r2": "unsettled"}
    assert [one.name for one in tmp_path.iterdir() if "-writer-" in one.name] == []
