"""The write queue batches operations and completes their futures."""

from __future__ import annotations

import asyncio
import queue

import pytest

from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.rows import make_intent_row, make_record_row
from tornado_proxy.ledger.writer.operations import Operation, QueueItem, WithdrawIntent, WriteIntent, WriteRecord
from tornado_proxy.ledger.writer.write_queue import WriteQueue
from tornado_proxy.ledger.writer.writer_thread import Queue


def write_intent(request_id: str) -> WriteIntent:
    return WriteIntent(make_intent_row(make_intent(request_id)))


def write_record(request_id: str) -> WriteRecord:
    return WriteRecord(make_record_row(make_record(make_intent(request_id))))


def make_queue(*, hangs_s: float = 60.0) -> tuple[WriteQueue, Queue]:
    items: Queue = queue.SimpleQueue()
    return WriteQueue(asyncio.get_running_loop(), items, hangs_s=hangs_s), items


def take_batch(items: Queue) -> list[QueueItem]:
    batch = items.get(timeout=5)
    assert batch is not None
    return batch


def take_operations(items: Queue) -> list[Operation]:
    return [item.operation for item in take_batch(items)]


async def end_loop_turn() -> None:
    """Let the callbacks run that the write queue has scheduled for the end of this turn."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_operations_of_one_loop_turn_are_one_batch() -> None:
    async def run() -> None:
        write_queue, items = make_queue()
        operations = [write_intent(f"r{number}") for number in range(3)]
        for operation in operations:
            write_queue.put(operation)
        assert items.empty()
        await end_loop_turn()

        assert take_operations(items) == operations
        assert items.empty()

    asyncio.run(run())


def test_record_waits_for_the_batch_delay_or_for_an_operation_that_cannot_wait() -> None:
    async def run() -> None:
        write_queue, items = make_queue()
        alone, waiting, urgent = write_record("r1"), write_record("r2"), write_intent("r3")
        write_queue.put(alone)
        await end_loop_turn()
        assert items.empty()
        assert await asyncio.to_thread(take_operations, items) == [alone]

        write_queue.put(waiting)
        write_queue.put(urgent)
        await end_loop_turn()
        assert take_operations(items) == [waiting, urgent]

    asyncio.run(run())


def test_full_batch_of_records_does_not_wait() -> None:
    async def run() -> None:
        write_queue, items = make_queue()
        for number in range(500):
            write_queue.put(write_record(f"r{number}"))
        await end_loop_turn()

        assert len(take_batch(items)) == 500

    asyncio.run(run())


def test_hanging_writer_refuses_waiting_intents_and_withdraws_them() -> None:
    async def run() -> None:
        write_queue, items = make_queue(hangs_s=0.0)
        begun, finished = write_queue.put(write_intent("r1")), write_queue.put(write_record("r2"))
        await asyncio.sleep(0.01)
        write_queue.check_writer()

        with pytest.raises(LedgerUnavailable, match="its disk or server hangs"):
            await begun
        assert not finished.done()
        assert "hangs" in write_queue.reason
        write_queue.flush()
        batches = take_batch(items) + ([] if items.empty() else take_batch(items))
        withdrawals = [item.operation for item in batches if isinstance(item.operation, WithdrawIntent)]
        assert withdrawals == [WithdrawIntent("r1")]

        write_queue.written(batches)
        await finished
        assert (write_queue.reason, write_queue.pending) == ("", 0)

    asyncio.run(run())


def test_working_writer_refuses_nothing() -> None:
    async def run() -> None:
        write_queue, _ = make_queue(hangs_s=60.0)
        begun = write_queue.put(write_intent("r1"))
        write_queue.check_writer()

        assert not begun.done()
        assert write_queue.reason == ""
        begun.cancel()

    asyncio.run(run())
