from __future__ import annotations

import asyncio
import queue

import pytest

from tests.ledger.calls import intent, record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.rows import intent_row, record_row
from tornado_proxy.ledger.writer.write_queue import WriteQueue
from tornado_proxy.ledger.writer.writer_thread import Entry


def begin(name: str) -> Entry:
    return Entry(intent=intent_row(intent(name)))


def finish(name: str) -> Entry:
    return Entry(record=record_row(record(intent(name))))


def make(*, hangs_s: float = 60.0) -> tuple[WriteQueue, queue.SimpleQueue[list[Entry] | None]]:
    entries: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
    return WriteQueue(asyncio.get_running_loop(), entries, hangs_s=hangs_s), entries


def taken(entries: queue.SimpleQueue[list[Entry] | None]) -> list[Entry]:
    handed = entries.get(timeout=5)
    assert handed is not None
    return handed


def test_what_comes_within_a_turn_of_the_loop_goes_over_together() -> None:
    async def run() -> None:
        hand_over, entries = make()
        given = [begin(f"r{number}") for number in range(3)]
        for one in given:
            hand_over.put(one)
        assert entries.empty()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert taken(entries) == given
        assert entries.empty()

    asyncio.run(run())


def test_a_record_waits_a_moment_for_company_and_goes_with_what_cannot_wait() -> None:
    async def run() -> None:
        hand_over, entries = make()
        alone, first, hurried = finish("r1"), finish("r2"), begin("r3")
        hand_over.put(alone)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entries.empty()
        assert await asyncio.to_thread(taken, entries) == [alone]

        hand_over.put(first)
        hand_over.put(hurried)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert taken(entries) == [first, hurried]

    asyncio.run(run())


def test_hundreds_of_records_do_not_wait() -> None:
    async def run() -> None:
        hand_over, entries = make()
        for number in range(500):
            hand_over.put(finish(f"r{number}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert len(taken(entries)) == 500

    asyncio.run(run())


def test_a_writer_that_hangs_turns_away_what_waits_and_withdraws_its_intent() -> None:
    async def run() -> None:
        hand_over, entries = make(hangs_s=0.0)
        intent_waits, record_waits = begin("r1"), finish("r2")
        begun, ended = hand_over.put(intent_waits), hand_over.put(record_waits)
        await asyncio.sleep(0.01)
        hand_over.watch()

        with pytest.raises(LedgerUnavailable, match="its disk or server hangs"):
            await begun
        assert not ended.done()
        assert "hangs" in hand_over.reason
        hand_over.flush()
        handed = taken(entries) + ([] if entries.empty() else taken(entries))
        assert [one.withdrawn for one in handed if one.withdrawn] == ["r1"]

        hand_over.written(handed, [None] * len(handed))
        await ended
        assert (hand_over.reason, hand_over.pending) == ("", 0)

    asyncio.run(run())


def test_a_writer_that_works_is_left_in_peace() -> None:
    async def run() -> None:
        hand_over, _ = make(hangs_s=60.0)
        begun = hand_over.put(begin("r1"))
        hand_over.watch()

        assert not begun.done()
        assert hand_over.reason == ""
        begun.cancel()

    asyncio.run(run())
