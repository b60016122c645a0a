"""Usage is read beside the event loop, by a bounded number of queries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import Make, open_ledger
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.database import Read, ReadTimeout
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record, UsageFilter
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.schema import prepare
from tornado_proxy.ledger.sqlite.backend import SqliteBackend

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


class SlowBackend:
    """A database that answers `heavy` queries when `released`, and others at once."""

    def __init__(self) -> None:
        self.released = False

    @contextlib.contextmanager
    def read(self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False) -> Iterator[Any]:
        def rows(_sql: str, values: Sequence[object]) -> Iterator[Any]:
            while "heavy" in values and not self.released:
                assert is_over is not None
                if is_over():
                    raise ReadTimeout
                time.sleep(0.001)
            yield from ()

        yield rows


def ask(reader: UsageReaderThread, caller: str, project: str) -> asyncio.Task[UsageResult]:
    return asyncio.create_task(reader.read_usage(UsageQuery(UsageFilter(project_id=project), asker=caller)))


@pytest.mark.parametrize("heavy_callers", [1, 3])
def test_light_query_does_not_wait_for_heavy_ones_of_others(heavy_callers: int) -> None:
    async def run() -> list[bool]:
        database = SlowBackend()
        reader = UsageReaderThread(database)  # type: ignore[arg-type]  # read() is all that it needs
        heavy = [ask(reader, f"caller {number % heavy_callers}", "heavy") for number in range(6)]
        await asyncio.sleep(0.1)
        await ask(reader, "another", "light")
        unfinished = [not task.done() for task in heavy]
        database.released = True
        reader.close()
        await asyncio.gather(*heavy, return_exceptions=True)
        return unfinished

    assert asyncio.run(run()) == [True] * 6


def test_caller_with_too_many_waiting_queries_is_refused_and_others_are_not() -> None:
    async def run() -> list[UsageResult | BaseException]:
        reader = UsageReaderThread(SlowBackend())  # type: ignore[arg-type]  # read() is all that it needs
        tasks = [ask(reader, "ada", "light") for _ in range(9)] + [ask(reader, "eve", "light")]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        reader.close()
        return results

    results = asyncio.run(run())

    assert [type(result).__name__ for result in results] == ["UsageResult"] * 8 + ["RateLimited", "UsageResult"]


@each_database
def test_query_after_close_is_refused(make: Make) -> None:
    async def run() -> None:
        async with open_ledger(make, []) as opened:
            pass
        await opened.usage(UsageQuery(ALL))

    with pytest.raises(LedgerUnavailable, match="closed"):
        asyncio.run(run())


class EndingBackend(SqliteBackend):
    """A ledger whose only lost request gets its record after the first query of the list."""

    @contextlib.contextmanager
    def read(self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False) -> Iterator[Read]:
        with super().read(is_over, snapshot=snapshot) as read:

            def read_and_end(sql: str, values: Sequence[object]) -> Iterator[Any]:
                rows = list(read(sql, values))
                if "FROM records r" in sql:
                    self.end_request()
                return iter(rows)

            yield read_and_end

    def end_request(self) -> None:
        with contextlib.closing(self.connect(create=False)) as db, db.transaction():
            db.run(
                "INSERT INTO records (request_id, started_at, total) SELECT request_id, started_at, '1' FROM intents"
            )
            db.run("DELETE FROM intents")


def test_list_has_a_lost_request_whose_record_arrives_meanwhile(tmp_path: Path) -> None:
    """Records and lost requests are read one after the other."""
    backend = EndingBackend(tmp_path / "ledger.db", fsync=False)
    with contextlib.closing(backend.connect(create=True)) as db:
        prepare(db, backend)
        db.run("INSERT INTO intents (request_id, writer, started_at, lost_at) VALUES ('r1', 'w', '2026', '2026')")

    async def run() -> list[Record]:
        reader = UsageReaderThread(backend)
        try:
            return await reader.list_records(RecordsQuery(UsageFilter(), 10))
        finally:
            reader.close()

    assert [(row["request_id"], row["total"]) for row in asyncio.run(run())] == [("r1", "0")]
