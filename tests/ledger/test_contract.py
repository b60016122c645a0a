"""The promises of the Ledger protocol, on each database (conftest.py) and on the fake of the other tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.calls import COST, START, intent, record, stored
from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.memory_ledger import MemoryLedger, MemoryStore
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, PendingRequest, RequestIntent, Settlement
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult

Make = Callable[[], Ledger]

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))


class MemoryLedgers:
    """Makes fakes over one store, as LedgerUnderTest makes ledgers over one database."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    def make(self) -> Ledger:
        return MemoryLedger(self._store)

    def records(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._store.bills()]


@pytest.fixture(params=["sqlite", "sqlite with fsync", "postgresql", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest | MemoryLedgers:
    """Return each store in turn."""
    return MemoryLedgers() if request.param == "memory" else open_test_database(request, tmp_path)


class TestLedger:
    def test_a_record_is_kept_as_it_was_given(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            one = intent("r1", session="s1")
            await ledger.begin(one)
            await ledger.finish(record(one))
            await ledger.close()

        asyncio.run(run())

        (kept,) = records()
        assert kept["request_id"] == "r1"
        assert (kept["project_id"], kept["room"], kept["participant"]) == ("project-a", "lab", "ada")
        assert (kept["user"], kept["session"]) == (None, "s1")
        assert (kept["model_requested"], kept["model"]) == ("gpt-5.4", "gpt-5.4-2026-03-05")
        assert (kept["status"], kept["outcome"], kept["basis"]) == (200, "completed", "reported")
        assert kept["started_at"] == "2026-03-02T10:00:00.123Z"
        assert kept["first_byte_at"] == "2026-03-02T10:00:00.373Z"
        assert kept["ended_at"] == "2026-03-02T10:00:01.123Z"
        assert kept["usage"] == '{"prompt_tokens":1000,"completion_tokens":100}'
        assert (kept["subtotal"], kept["surcharge"], kept["total"]) == ("0.00225", "0.000112500000", "0.002362500000")

    def test_an_intent_alone_is_no_record(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.begin(intent("r1"))

            assert records() == []

            await ledger.close()

        asyncio.run(run())

    def test_an_intent_without_a_record_is_unsettled_at_the_next_start(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.begin(intent("r1"))
            await ledger.close()
            again = make()
            await again.open()
            await again.close()

        asyncio.run(run())

        (kept,) = records()
        assert (kept["request_id"], kept["basis"], kept["outcome"]) == ("r1", "unsettled", "crashed")
        assert (kept["model"], kept["model_requested"], kept["status"]) == (None, "gpt-5.4", None)
        assert kept["line_items"] == "[]"

    def test_a_second_record_of_a_request_is_not_stored(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            one = intent("r1")
            await ledger.begin(one)
            await ledger.finish(record(one))
            await ledger.finish(record(one, outcome=Outcome.SHUTDOWN))
            await asyncio.gather(*(ledger.finish(record(intent("r2"))) for _ in range(3)))
            await ledger.close()

        asyncio.run(run())

        assert [(kept["request_id"], kept["outcome"]) for kept in records()] == [
            ("r1", "completed"),
            ("r2", "completed"),
        ]

    def test_a_record_without_an_intent_is_stored(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.finish(record(intent("r1")))
            await ledger.close()

        asyncio.run(run())

        assert [kept["request_id"] for kept in records()] == ["r1"]

    def test_close_writes_what_waits(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            waiting = [ledger.finish(record(intent(f"r{number:04}"))) for number in range(3000)]

            assert ledger.pending == 3000

            await ledger.close()
            assert ledger.pending == 0
            assert all(one.done() for one in waiting)

        asyncio.run(run())

        assert len(records()) == 3000

    def test_a_record_after_close_is_stored_at_the_next_start(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            one = intent("r1")
            await ledger.begin(one)
            await ledger.close()
            await ledger.finish(record(one))
            again = make()
            await again.open()
            await again.close()

        asyncio.run(run())

        assert [(kept["request_id"], kept["basis"]) for kept in records()] == [("r1", "reported")]

    def test_a_begin_that_was_cancelled_leaves_no_intent(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> bool:
            ledger = make()
            await ledger.open()
            begun = asyncio.ensure_future(ledger.begin(intent("r1")))
            await asyncio.sleep(0)
            cancelled = begun.cancel()  # not where it had nothing to wait for
            await asyncio.gather(begun, return_exceptions=True)
            await ledger.close()
            again = make()
            await again.open()
            await again.close()
            return cancelled

        cancelled = asyncio.run(run())

        assert [kept["request_id"] for kept in records()] == ([] if cancelled else ["r1"])

    def test_a_closed_ledger_starts_no_request(self, make: Make) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            assert ledger.healthy
            assert ledger.reason == ""
            await ledger.close()

            assert not ledger.healthy
            with pytest.raises(LedgerUnavailable, match="closed"):
                await ledger.begin(intent("r1"))

        asyncio.run(run())

    def test_records_are_durable_within_100_ms_beside_a_busy_loop(self, make: Make) -> None:
        turns, turn_s = 0, 0.002

        async def run() -> list[int]:
            nonlocal turns
            ledger = make()
            await ledger.open()
            took = []

            async def call(one: RequestIntent) -> None:
                await ledger.begin(one)
                began = turns
                await ledger.finish(record(one))
                took.append(turns - began)

            calls = [asyncio.ensure_future(call(intent(f"r{number}"))) for number in range(200)]
            while not all(one.done() for one in calls):
                turns += 1
                until = time.monotonic() + turn_s
                while time.monotonic() < until:
                    pass
                await asyncio.sleep(0)
            await ledger.close()
            return took

        took = sorted(asyncio.run(run()))

        # The median, and in turns of the loop: a busy machine may stop the whole process for longer.
        assert took[len(took) // 2] * turn_s < 0.1

    def test_a_settlement_stands_in_for_what_was_pending_once(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        kept_facts = DeferredRatingFacts(Terms("flex", cache_ttl="12h"), "gpt-image-1.5", 400)
        waits = record(intent("r1"), basis=Basis.PENDING, cost=FREE, usage=None, object_id="batch_1", kept=kept_facts)

        async def run() -> list[list[PendingRequest]]:
            ledger = make()
            await ledger.open()
            await ledger.finish(waits)
            before = await ledger.pending_requests(10)
            settled = Settlement(
                "r1", "gpt-5.4", Basis.ESTIMATED, COST, START + timedelta(hours=1), '{"n":1}', estimate_method="by_size"
            )
            await ledger.settle(settled)
            await ledger.settle(Settlement("r1", "other", Basis.FREE, FREE, START + timedelta(hours=2)))
            after = await ledger.pending_requests(10)
            await ledger.close()
            return [before, after]

        before, after = asyncio.run(run())

        assert [(one.request_id, one.object_id, one.kept) for one in before] == [("r1", "batch_1", kept_facts)]
        assert after == []
        (kept,) = records()
        assert (kept["basis"], kept["estimate_method"]) == ("estimated", "by_size")
        assert (kept["model"], kept["total"]) == ("gpt-5.4", "0.002362500000")

    def test_an_object_belongs_to_the_project_that_made_it(self, make: Make) -> None:
        other = intent("r2", caller=Caller("project-b", user="eve@example.com"))

        async def run() -> list[object]:
            ledger = make()
            await ledger.open()
            await ledger.finish(record(intent("r1"), object_id="resp_1", objects=("cntr_1",)))
            await ledger.finish(record(other, object_id="resp_1"))
            answers: list[object] = [
                await ledger.owner_of("openai", "resp_1"),
                await ledger.owner_of("openai", "cntr_1"),
                await ledger.owner_of("anthropic", "resp_1"),
                await ledger.owned_by("project-a", "openai", "/v1/chat/completions"),
            ]
            await ledger.close()
            return answers

        assert asyncio.run(run()) == ["project-a", "project-a", None, frozenset({"resp_1"})]

    def test_usage_is_summed_over_the_records_of_the_filter(self, make: Make) -> None:
        other = intent("r2", caller=Caller("project-b", user="eve@example.com"))

        async def run() -> list[UsageResult]:
            ledger = make()
            await ledger.open()
            await asyncio.gather(*(ledger.finish(record(request)) for request in (intent("r1"), other)))
            queries = [UsageFilter(), UsageFilter(project_id="project-b"), UsageFilter(model="gpt-4o")]
            results = [await ledger.usage(UsageQuery(which, group_by=("user",))) for which in queries]
            await ledger.close()
            return results

        both, second, none = asyncio.run(run())

        assert (both.requests, both.total) == (2, Decimal("0.004725"))
        assert (second.requests, second.total) == (1, Decimal("0.0023625"))
        assert {row.group for row in second.rows} == {("eve@example.com",)}
        assert (none.requests, none.rows) == (0, [])


def test_amounts_are_stored_without_an_exponent(tmp_path: Path) -> None:
    tiny = Cost((), Decimal("1E-12"), Decimal("0E-12"), Decimal("1E-12"))

    async def run() -> None:
        ledger = make_ledger(tmp_path / "ledger.db")
        await ledger.open()
        await ledger.finish(record(intent("r1"), cost=tiny))
        await ledger.close()

    asyncio.run(run())

    (kept,) = stored(tmp_path / "ledger.db")
    assert (kept["subtotal"], kept["surcharge"], kept["total"]) == (
        "0.000000000001",
        "0.000000000000",
        "0.000000000001",
    )
