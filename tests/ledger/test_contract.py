"""The promises of the Ledger protocol, on each database (conftest.py) and on the fake of the other tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.memory_ledger import MemoryLedger, MemoryStore
from tests.ledger.sample_records import COST, START, make_intent, make_record, read_rows
from tornado_proxy.domain.attribution import Attribution
from tornado_proxy.domain.cost import Cost, StatedBound
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import Caller, KeyId
from tornado_proxy.domain.record import ObjectOwner, Outcome, PendingRequest, RequestIntent, Settlement
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.request_lookup import RequestLookup
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult

Make = Callable[[], Ledger]

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))


class MemoryDatabase:
    """Makes fakes on one store, as LedgerUnderTest makes ledgers on a database."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    def make(self) -> Ledger:
        return MemoryLedger(self._store)

    def records(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._store.bills()]


@pytest.fixture(params=["sqlite", "sqlite with fsync", "postgresql", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest | MemoryDatabase:
    """Return each store in turn."""
    return MemoryDatabase() if request.param == "memory" else open_test_database(request, tmp_path)


class TestLedger:
    def test_record_is_stored_as_it_was_passed(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            request = make_intent("r1", session="s1")
            await ledger.begin(request)
            await ledger.finish(make_record(request))
            await ledger.close()

        asyncio.run(run())

        (row,) = records()
        assert row["request_id"] == "r1"
        assert (row["project_id"], row["room"], row["participant"]) == ("project-a", "lab", "ada")
        assert (row["user"], row["session"]) == (None, "s1")
        assert (row["model_requested"], row["model"]) == ("gpt-5.4", "gpt-5.4-2026-03-05")
        assert (row["status"], row["outcome"], row["basis"]) == (200, "completed", "reported")
        assert row["started_at"] == "2026-03-02T10:00:00.123Z"
        assert row["first_byte_at"] == "2026-03-02T10:00:00.373Z"
        assert row["ended_at"] == "2026-03-02T10:00:01.123Z"
        assert row["usage"] == '{"prompt_tokens":1000,"completion_tokens":100}'
        assert (row["subtotal"], row["surcharge"], row["total"]) == ("0.00225", "0.000112500000", "0.002362500000")

    def test_intent_is_not_a_record(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.begin(make_intent("r1"))

            assert records() == []

            await ledger.close()

        asyncio.run(run())

    def test_open_intent_is_unsettled_after_the_next_start(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.begin(make_intent("r1"))
            await ledger.close()
            again = make()
            await again.open()
            await again.close()

        asyncio.run(run())

        (row,) = records()
        assert (row["request_id"], row["basis"], row["outcome"]) == ("r1", "unsettled", "crashed")
        assert (row["model"], row["model_requested"], row["status"]) == (None, "gpt-5.4", None)
        assert row["line_items"] == "[]"

    def test_intent_that_is_begun_again_is_one_request(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            for total in ("0.1", "0.5"):
                await ledger.begin(make_intent("r1", bound=StatedBound(total, total)))
            await ledger.finish(make_record(make_intent("r1", bound=StatedBound("0.5", "0.5"))))
            for total in ("0.1", "0.5"):
                await ledger.begin(make_intent("r2", bound=StatedBound(total, total)))
            await ledger.close()
            again = make()
            await again.open()
            await again.close()

        asyncio.run(run())

        assert sorted((row["request_id"], row["basis"]) for row in records()) == [
            ("r1", "reported"),
            ("r2", "unsettled"),
        ]

    def test_second_record_of_a_request_is_not_stored(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            request = make_intent("r1")
            await ledger.begin(request)
            await ledger.finish(make_record(request))
            await ledger.finish(make_record(request, outcome=Outcome.SHUTDOWN))
            await asyncio.gather(*(ledger.finish(make_record(make_intent("r2"))) for _ in range(3)))
            await ledger.close()

        asyncio.run(run())

        assert [(row["request_id"], row["outcome"]) for row in records()] == [
            ("r1", "completed"),
            ("r2", "completed"),
        ]

    def test_record_without_an_intent_is_stored(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            await ledger.finish(make_record(make_intent("r1")))
            await ledger.close()

        asyncio.run(run())

        assert [row["request_id"] for row in records()] == ["r1"]

    def test_close_writes_pending_records(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            # More than one transaction takes (writer_thread.MAX_TRANSACTION_OPERATIONS).
            waiting = [ledger.finish(make_record(make_intent(f"r{number:04}"))) for number in range(2500)]

            assert ledger.pending == 2500

            await ledger.close()
            assert ledger.pending == 0
            assert all(done.done() for done in waiting)

        asyncio.run(run())

        assert len(records()) == 2500

    def test_record_after_close_is_stored_at_the_next_start(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            request = make_intent("r1")
            await ledger.begin(request)
            await ledger.close()
            await ledger.finish(make_record(request))
            again = make()
            await again.open()
            await again.close()

        asyncio.run(run())

        assert [(row["request_id"], row["basis"]) for row in records()] == [("r1", "reported")]

    def test_cancelled_begin_leaves_no_intent(self, make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
        async def run() -> bool:
            ledger = make()
            await ledger.open()
            begun = asyncio.ensure_future(ledger.begin(make_intent("r1")))
            await asyncio.sleep(0)
            cancelled = begun.cancel()  # False if begin() returned without waiting
            await asyncio.gather(begun, return_exceptions=True)
            await ledger.close()
            again = make()
            await again.open()
            await again.close()
            return cancelled

        cancelled = asyncio.run(run())

        assert [row["request_id"] for row in records()] == ([] if cancelled else ["r1"])

    def test_closed_ledger_refuses_requests(self, make: Make) -> None:
        async def run() -> None:
            ledger = make()
            await ledger.open()
            assert ledger.healthy
            assert ledger.reason == ""
            await ledger.close()

            assert not ledger.healthy
            with pytest.raises(LedgerUnavailable, match="closed"):
                await ledger.begin(make_intent("r1"))

        asyncio.run(run())

    def test_record_is_durable_within_100_ms_beside_a_busy_event_loop(self, make: Make) -> None:
        turns, turn_s = 0, 0.002

        async def run() -> list[int]:
            nonlocal turns
            ledger = make()
            await ledger.open()
            waits = []

            async def send(request: RequestIntent) -> None:
                await ledger.begin(request)
                began = turns
                await ledger.finish(make_record(request))
                waits.append(turns - began)

            requests = [asyncio.ensure_future(send(make_intent(f"r{number}"))) for number in range(200)]
            while not all(task.done() for task in requests):
                turns += 1
                turn_end = time.monotonic() + turn_s
                while time.monotonic() < turn_end:
                    pass
                await asyncio.sleep(0)
            await ledger.close()
            return waits

        turns_taken = sorted(asyncio.run(run()))

        # The median, and in turns of the loop: a busy machine may stop the whole process for longer.
        assert turns_taken[len(turns_taken) // 2] * turn_s < 0.1

    def test_first_settlement_replaces_the_figures_of_a_pending_record(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        facts = DeferredRatingFacts(Terms("flex", cache_ttl="12h", completion_window="8h"), "gpt-image-1.5", 400)
        pending = make_record(
            make_intent("r1"), basis=Basis.PENDING, cost=FREE, usage=None, object_id="batch_1", deferred_facts=facts
        )

        async def run() -> list[list[PendingRequest]]:
            ledger = make()
            await ledger.open()
            await ledger.finish(pending)
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

        assert [(request.request_id, request.object_id, request.deferred_facts) for request in before] == [
            ("r1", "batch_1", facts)
        ]
        assert after == []
        (row,) = records()
        assert (row["basis"], row["estimate_method"]) == ("estimated", "by_size")
        assert (row["model"], row["total"]) == ("gpt-5.4", "0.002362500000")

    def test_given_up_request_shows_its_figures_until_it_is_settled(
        self, make: Make, records: Callable[[], list[dict[str, Any]]]
    ) -> None:
        pending = make_record(make_intent("r1"), basis=Basis.PENDING, cost=FREE, usage=None, object_id="batch_1")
        given_up = Settlement("r1", None, Basis.UNSETTLED, FREE, START + timedelta(hours=1), "first", final=False)

        async def run() -> tuple[list[PendingRequest], list[dict[str, Any]]]:
            ledger = make()
            await ledger.open()
            await ledger.finish(pending)
            await ledger.settle(given_up)
            await ledger.settle(replace(given_up, usage="second"))
            waiting = await ledger.pending_requests(10)
            await ledger.close()
            shown = records()
            again = make()
            await again.open()
            await again.settle(Settlement("r1", "gpt-5.4", Basis.REPORTED, COST, START + timedelta(days=1)))
            await again.close()
            return waiting, shown

        waiting, (shown,) = asyncio.run(run())

        assert [request.request_id for request in waiting] == ["r1"]
        assert (shown["basis"], shown["usage"]) == ("unsettled", "first")
        (row,) = records()
        assert (row["basis"], row["total"], row["usage"]) == ("reported", "0.002362500000", None)

    def test_pending_requests_are_read_in_pages_and_by_their_object(self, make: Make) -> None:
        facts = DeferredRatingFacts(output_bytes=9, made_with=KeyId("main", "0123456789ab", own=True))
        callers = (Caller("project-a", participant="ada"), Caller("project-b", user="eve"))

        async def run() -> tuple[list[list[str]], list[PendingRequest | None]]:
            ledger = make()
            await ledger.open()
            for number in range(5):
                intent = make_intent(f"r{number}", caller=callers[number % 2], attribution=Attribution(f"s{number}"))
                record = make_record(intent, object_id=f"resp_{number}", cost=FREE)
                pending = structs.replace(record, basis=Basis.PENDING, deferred_facts=facts)
                await ledger.finish(record if number == 2 else pending)
            pages, after = [], 0
            while page := await ledger.pending_requests(3, after):
                pages.append([request.request_id for request in page])
                after = page[-1].seq
            found = [
                await ledger.pending_request("openai", "resp_4"),
                await ledger.pending_request("openai", "resp_3"),
                await ledger.pending_request("openai", "resp_2"),
                await ledger.pending_request("anthropic", "resp_4"),
            ]
            await ledger.close()
            return pages, found

        pages, (found, by_user, *others) = asyncio.run(run())

        assert pages == [["r0", "r1", "r3"], ["r4"]]
        assert found is not None
        assert (found.request_id, found.deferred_facts) == ("r4", facts)
        assert (found.participant, found.user, found.agent_session) == ("ada", None, "s4")
        assert by_user is not None
        assert (by_user.project_id, by_user.participant, by_user.user) == ("project-b", None, "eve")
        assert others == [None, None]

    @pytest.mark.parametrize("key", [None, KeyId("main", "0123456789ab"), KeyId("eu", "ba9876543210", own=True)])
    def test_object_belongs_to_the_project_and_the_key_that_created_it(self, make: Make, key: KeyId | None) -> None:
        other = make_intent("r2", caller=Caller("project-b", user="eve@example.com"))

        async def run() -> list[object]:
            ledger = make()
            await ledger.open()
            intent = make_intent("r1", key=key)
            await ledger.finish(make_record(intent, object_id="resp_1", objects=("cntr_1",)))
            await ledger.finish(make_record(other, object_id="resp_1"))
            owners: list[object] = [
                await ledger.owner_of("openai", "resp_1"),
                await ledger.owner_of("openai", "cntr_1"),
                await ledger.owner_of("anthropic", "resp_1"),
                await ledger.owned_by("project-a", "openai", "/v1/chat/completions"),
                await ledger.keys_of("project-a", "openai", "/v1/chat/completions"),
            ]
            await ledger.close()
            return owners

        assert asyncio.run(run()) == [
            ObjectOwner("project-a", key),
            ObjectOwner("project-a", key),
            None,
            frozenset({"resp_1"}),
            {} if key is None else {"resp_1": key},
        ]

    def test_usage_is_summed_over_the_records_of_the_filter(self, make: Make) -> None:
        other = make_intent("r2", caller=Caller("project-b", user="eve@example.com"))

        async def run() -> list[UsageResult]:
            ledger = make()
            await ledger.open()
            await asyncio.gather(*(ledger.finish(make_record(request)) for request in (make_intent("r1"), other)))
            queries = [UsageFilter(), UsageFilter(project_id="project-b"), UsageFilter(model="gpt-4o")]
            results = [await ledger.usage(UsageQuery(which, group_by=("user",))) for which in queries]
            await ledger.close()
            return results

        both, second, none = asyncio.run(run())

        assert (both.requests, both.total) == (2, Decimal("0.004725"))
        assert (second.requests, second.total) == (1, Decimal("0.0023625"))
        assert {row.group for row in second.rows} == {("eve@example.com",)}
        assert (none.requests, none.rows) == (0, [])

    def test_request_is_found_by_each_of_its_ids_for_its_own_caller_only(self, make: Make) -> None:
        now = START + timedelta(hours=1)
        intent = make_intent("r1")
        record = make_record(intent, object_id="resp_1", upstream_request_id="req_of_provider")

        async def run() -> list[list[object]]:
            ledger = make()
            await ledger.open()
            await ledger.finish(record)
            own = (("participant", "ada"),)
            lookups = [
                *(RequestLookup(name, "project-a", own, now) for name in ("r1", "resp_1", "req_of_provider", "r2")),
                RequestLookup("r1", "project-a", (("participant", "eve"),), now),
                RequestLookup("r1", "project-b", (), now),
                RequestLookup("r1", "project-a", (), now),
            ]
            found = [await ledger.find_requests(lookup) for lookup in lookups]
            await ledger.close()
            return [[row["request_id"] for row in rows] for rows in found]

        assert asyncio.run(run()) == [["r1"], ["r1"], ["r1"], [], [], [], ["r1"]]

    def test_records_are_listed_newest_first_page_by_page(self, make: Make) -> None:
        later = START + timedelta(seconds=5)
        intents = [
            make_intent("r1"),
            make_intent("r2", started_at=later),
            make_intent("r3", started_at=later, caller=Caller("project-b", participant="eve")),
            make_intent("r4", started_at=later + timedelta(seconds=5), key=KeyId("main", "f1")),
        ]

        async def run() -> list[list[object]]:
            ledger = make()
            await ledger.open()
            await asyncio.gather(*(ledger.finish(make_record(intent)) for intent in intents))
            first = await ledger.list_records(RecordsQuery(UsageFilter(), 2))
            place = (str(first[-1]["started_at"]), str(first[-1]["request_id"]))
            own, by_key = UsageFilter(project_id="project-a"), UsageFilter(provider_key="main")
            pages = [
                first,
                await ledger.list_records(RecordsQuery(UsageFilter(), 5, place)),
                await ledger.list_records(RecordsQuery(own, 5, place)),
                await ledger.list_records(RecordsQuery(by_key, 5)),
                await ledger.list_records(RecordsQuery(UsageFilter(until="2026-03-02T10:00:00.000Z"), 5)),
            ]
            await ledger.close()
            return [[row["request_id"] for row in rows] for rows in pages]

        assert asyncio.run(run()) == [["r4", "r3"], ["r2", "r1"], ["r2", "r1"], ["r4"], []]


def test_amount_is_stored_without_an_exponent(tmp_path: Path) -> None:
    tiny = Cost((), Decimal("1E-12"), Decimal("0E-12"), Decimal("1E-12"))

    async def run() -> None:
        ledger = make_ledger(tmp_path / "ledger.db")
        await ledger.open()
        await ledger.finish(make_record(make_intent("r1"), cost=tiny))
        await ledger.close()

    asyncio.run(run())

    (row,) = read_rows(tmp_path / "ledger.db")
    assert (row["subtotal"], row["surcharge"], row["total"]) == (
        "0.000000000001",
        "0.000000000000",
        "0.000000000001",
    )
