"""Pushes the changes of a ledger to a receiver, each at least once, in order, with an id that does not change.

    stored cursor ──> some changes ──> event after event, each accepted ──> cursor moves
                           ^                    │ failure: again, after a growing wait
                           └── the process dies: the same events again, with the same ids

A receiver that keeps the ids it has accepted, and ignores an event whose id it knows, so has each event exactly once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_proxy.exports.events import DEFAULT_SOURCE, Event, make_event
from tornado_proxy.exports.receiver import Failure, Receiver
from tornado_proxy.ledger.changes import BEGINNING, Position, follow
from tornado_proxy.ledger.cursors import Cursor
from tornado_proxy.ledger.database import Backend

#: Records between two moves of the cursor: at most so many events are sent again after a crash.
BATCH_SIZE = 100

#: Seconds between two attempts: doubled after each failure.
_MIN_WAIT_S = 0.25
_MAX_WAIT_S = 30.0


class PushFailed(Exception):
    """The receiver accepts an event neither now nor soon.  The cursor is before it."""


@dataclass(frozen=True, slots=True)
class Push:
    """The settings of a push.

    Attributes:
        cursor_name: The name of the stored cursor.
        start: The position to begin after if the cursor is not stored yet.
        source: The attribute `source` of the events.
        give_up_s: Seconds for which an event that is not accepted is tried again.
        wait: Waits between two attempts.
    """

    cursor_name: str
    start: Position = BEGINNING
    source: str = DEFAULT_SOURCE
    give_up_s: float = 300.0
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Pushed:
    """The number of accepted events, and the cursor after them."""

    events: int
    position: Position


def push_changes(backend: Backend, push: Push, receiver: Receiver) -> Pushed:
    """Send all changes after the stored cursor, and move it; return when the end is reached.

    Raises:
        PushFailed: An event is not accepted.
        LedgerUnavailable: The ledger cannot be read.
        StoreError: The cursor cannot be read or stored.
    """
    with contextlib.closing(backend.connect(create=False)) as db:
        cursor = Cursor(db, backend.dialect, push.cursor_name)
        position, sent = cursor.read() or push.start, 0
        for batch in follow(backend, position, BATCH_SIZE):
            for change in batch.changes:
                _deliver(make_event(change, push.source), push, receiver)
                sent += 1
            position = cursor.move(batch.position, datetime.now(UTC))
    return Pushed(sent, position)


def _deliver(event: Event, push: Push, receiver: Receiver) -> None:
    """Send an event until it is accepted."""
    wait_s, waited_s = _MIN_WAIT_S, 0.0
    while (failure := receiver.post(event)) is not None:
        if failure.lasting or waited_s >= push.give_up_s:
            raise PushFailed(_describe(event, failure))
        push.wait(wait_s)
        waited_s += wait_s
        wait_s = min(wait_s * 2, _MAX_WAIT_S)


def _describe(event: Event, failure: Failure) -> str:
    remedy = "correct the receiver or the URL" if failure.lasting else "see that the receiver runs"
    return f"the receiver did not accept event {event.id} ({failure.reason}); {remedy}, then push again"
