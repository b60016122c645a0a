"""The operations that the event loop queues for the writer thread: one class each, and the rules that depend on it.

`retried` is True if a failing operation is retried until it succeeds, False if it is refused.  `waits` is True if it
may wait for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, assert_never

import msgspec

from tornado_proxy.ledger.columns import IntentRow, RecordRow, SettlementRow
from tornado_proxy.ledger.rows import make_storable_row
from tornado_proxy.ledger.writer.store import Store


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """Store the intent of a request that is sent afterwards."""

    #: It is refused before its request costs anything.
    retried: ClassVar[bool] = False
    waits: ClassVar[bool] = False

    row: IntentRow


@dataclass(frozen=True, slots=True)
class MoveIntents:
    """Store the open intents of an intent log that is full; its file is removed afterwards."""

    retried: ClassVar[bool] = True
    waits: ClassVar[bool] = False

    rows: Sequence[IntentRow]


class WriteRecord(msgspec.Struct, frozen=True):
    """Store a record and delete its intent."""

    #: The provider charges for the request.  No request and no task waits until its record is durable.
    retried: ClassVar[bool] = True
    waits: ClassVar[bool] = True

    row: RecordRow


@dataclass(frozen=True, slots=True)
class WriteSettlement:
    """Store the settlement of a pending record."""

    retried: ClassVar[bool] = True
    waits: ClassVar[bool] = False

    row: SettlementRow


@dataclass(frozen=True, slots=True)
class WithdrawIntent:
    """Delete the intent of a request that was not sent, so that it never counts as lost."""

    retried: ClassVar[bool] = True
    waits: ClassVar[bool] = False

    request_id: str


@dataclass(frozen=True, slots=True)
class ReadStore:
    """Run a query after all operations that were queued before it are written."""

    retried: ClassVar[bool] = False
    waits: ClassVar[bool] = False

    query: Callable[[Store], object]


Operation = WriteIntent | MoveIntents | WriteRecord | WriteSettlement | WithdrawIntent | ReadStore


# eq=False: items are hashed and compared by identity.  Two records may have equal rows.
class QueueItem(msgspec.Struct, eq=False):
    """An operation in the queue, and the future of its result; `done` is None if no caller awaits it.

    `result` is that of a ReadStore that has run.
    """

    operation: Operation
    done: asyncio.Future[Any] | None = None
    result: object = None


def make_withdrawal(operation: Operation) -> WithdrawIntent | None:
    """Return the operation that undoes a WriteIntent; None for any other operation."""
    return WithdrawIntent(operation.row.request_id) if isinstance(operation, WriteIntent) else None


def find_record(operation: Operation) -> RecordRow | None:
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
