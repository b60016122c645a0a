"""The operations that the event loop queues for the writer thread: one class each, and the rules that depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from tornado_proxy.ledger.rows import Row, make_storable_row
from tornado_proxy.ledger.writer.store import Batch, Store


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """Store the intent of a request that is sent afterwards."""

    row: Row


@dataclass(frozen=True, slots=True)
class MoveIntents:
    """Store the open intents of an intent log that is full; its file is removed afterwards."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Store a record and delete its intent."""

    row: Row


@dataclass(frozen=True, slots=True)
class WriteSettlement:
    """Store the settlement of a pending record."""

    row: Row


@dataclass(frozen=True, slots=True)
class WithdrawIntent:
    """Delete the intent of a request that was not sent, so that it never counts as lost."""

    request_id: str


@dataclass(frozen=True, slots=True)
class ReadStore:
    """Run a query after all operations that were queued before it are written."""

    query: Callable[[Store], object]


Operation = WriteIntent | MoveIntents | WriteRecord | WriteSettlement | WithdrawIntent | ReadStore


# eq=False: items are hashed and compared by identity.  Two records may have equal rows.
@dataclass(slots=True, eq=False)
class QueueItem:
    """An operation in the queue, and the future of its result; `done` is None if no caller awaits it."""

    operation: Operation
    done: asyncio.Future[Any] | None = None


def is_retried(operation: Operation) -> bool:
    """Return True if a failing operation is retried until it succeeds, False if it is refused.

    An intent is refused before its request costs anything.  A record is retried: the provider charges for it.
    """
    match operation:
        case WriteRecord() | WriteSettlement() | MoveIntents() | WithdrawIntent():
            return True
        case WriteIntent() | ReadStore():
            return False
        case _:
            assert_never(operation)


def may_wait(operation: Operation) -> bool:
    """Return True if the operation may wait for others: no request and no task waits until a record is durable."""
    return isinstance(operation, WriteRecord)


def make_withdrawal(operation: Operation) -> WithdrawIntent | None:
    """Return the operation that undoes a WriteIntent; None for any other operation."""
    return WithdrawIntent(str(operation.row["request_id"])) if isinstance(operation, WriteIntent) else None


def find_record(operation: Operation) -> Row | None:
    """Return the row that the journal holds while the store fails; None for an operation without a record."""
    return operation.row if isinstance(operation, WriteRecord) else None


def make_storable(operation: Operation) -> Operation:
    """Return the operation with text that every database accepts; an equal one if all of its text was accepted."""
    match operation:
        case WriteIntent(row):
            return WriteIntent(make_storable_row(row))
        case WriteRecord(row):
            return WriteRecord(make_storable_row(row))
        case WriteSettlement(row):
            return WriteSettlement(make_storable_row(row))
        case MoveIntents() | WithdrawIntent() | ReadStore():
            return operation  # OpenIntents has replaced the text of moved intents; ids are the proxy's own
        case _:
            assert_never(operation)


def make_batch(items: Sequence[QueueItem]) -> Batch:
    """Return the rows to write in one transaction."""
    batch = Batch()
    # `case WriteRecord()` and not `case WriteRecord(row)`: a positional pattern doubles the time of this loop, which
    # runs for each operation of the proxy.
    for item in items:
        operation = item.operation
        match operation:
            case WriteRecord():
                batch.records.append(operation.row)
            case WriteIntent():
                batch.intents.append(operation.row)
            case MoveIntents():
                batch.intents.extend(operation.rows)
            case WriteSettlement():
                batch.settlements.append(operation.row)
            case WithdrawIntent():
                batch.withdrawn.append(operation.request_id)
            case ReadStore():
                pass  # it runs after the transaction
            case _:
                assert_never(operation)
    return batch
