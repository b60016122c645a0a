"""The part of the in-memory ledger that is no promise of the Ledger protocol."""

from __future__ import annotations

import asyncio

import pytest

from tests.ledger.memory_ledger import MemoryLedger
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable


def test_failing_ledger_refuses_requests_and_holds_records_until_it_recovers() -> None:
    async def run() -> None:
        ledger = MemoryLedger()
        await ledger.begin(make_intent("r1"))
        ledger.fail("the disk is full")

        assert (ledger.healthy, ledger.reason) == (False, "the disk is full")
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await ledger.begin(make_intent("r2"))
        stored = ledger.finish(make_record(make_intent("r1")))
        await asyncio.sleep(0)
        assert (stored.done(), ledger.pending) == (False, 1)

        ledger.recover()
        await stored
        assert (ledger.healthy, ledger.pending) == (True, 0)
        assert [row["request_id"] for row in ledger.store.bills()] == ["r1"]

    asyncio.run(run())


def test_ledger_shows_the_values_that_it_was_given() -> None:
    async def run() -> MemoryLedger:
        ledger = MemoryLedger()
        await ledger.begin(make_intent("r1"))
        await ledger.finish(make_record(make_intent("r1")))
        return ledger

    ledger = asyncio.run(run())

    assert ledger.begun == [make_intent("r1")]
    assert ledger.finished == [make_record(make_intent("r1"))]
    assert ledger.settled == []
