"""Records are listed in order and summed exactly, the same on each database."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.identity import Caller
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult


def test_records_are_read_oldest_first_then_in_the_order_of_writing(store: LedgerUnderTest) -> None:
    later = make_intent("a", started_at=make_intent("x").started_at.replace(hour=11))
    store.write(later, make_intent("c"), make_intent("b"))

    assert [row["request_id"] for row in store.records()] == ["c", "b", "a"]


def test_sqlite_reads_records_in_order_without_sorting(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    LedgerUnderTest(path, fsync=False).write(make_intent("r1"))

    with make_backend(path).read() as read:
        plan = [step[3] for step in read("EXPLAIN QUERY PLAN SELECT * FROM bills ORDER BY started_at, seq", ())]

    assert plan[0] == "MERGE (UNION ALL)"
    assert "SCAN r USING INDEX records_time" in plan
    assert [step for step in plan[: plan.index("RIGHT")] if "TEMP B-TREE" in step] == []


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
