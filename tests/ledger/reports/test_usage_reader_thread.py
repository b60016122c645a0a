"""Usage is read beside the event loop, by a bounded number of queries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.ledger.conftest import Make, open_ledger
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult

ALL = UsageFilter(project_id="project-a")

each_database = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)


def test_missing_file_is_an_unavailable_ledger(tmp_path: Path) -> None:
    async def run() -> None:
        await make_ledger(tmp_path / "nowhere" / "ledger.db").usage(UsageQuery(ALL))

    with pytest.raises(LedgerUnavailable, match="there is no ledger"):
        asyncio.run(run())


@each_database
def test_event_loop_runs_while_usage_is_read(make: Make) -> None:
    records = [make_record(make_intent(f"req_{number}")) for number in range(3000)]

    async def run() -> tuple[int, UsageResult]:
        async with open_ledger(make, records) as opened:
            turns = 0
            reading = asyncio.create_task(opened.usage(UsageQuery(ALL)))
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
            return turns, reading.result()

    turns, result = asyncio.run(run())

    assert result.requests == 3000
    assert turns > 20


@each_database
def test_queries_over_the_limit_of_waiting_ones_are_refused(make: Make) -> None:
    async def run() -> list[UsageResult | BaseException]:
        async with open_ledger(make, [make_record(make_intent("req_1"))]) as opened:
            queries = [opened.usage(UsageQuery(ALL)) for _ in range(40)]
            return await asyncio.gather(*queries, return_exceptions=True)

    results = asyncio.run(run())

    assert [type(result).__name__ for result in results] == ["UsageResult"] * 32 + ["Overloaded"] * 8


@each_database
def test_query_after_close_is_refused(make: Make) -> None:
    async def run() -> None:
        async with open_ledger(make, []) as opened:
            pass
        await opened.usage(UsageQuery(ALL))

    with pytest.raises(LedgerUnavailable, match="closed"):
        asyncio.run(run())
