"""Follows the ledger, and sends its changes; the stored cursor moves when the receiver has taken it.

    cursor ──> some changes ──> spans sent ──> measurements recorded ──> metrics sent ──> cursor moves
      ^                             │ failure: the same ones again, after a growing wait
      └── the process dies: the same spans again, with the same ids

The ledger is the queue, so that a receiver may be down for as long as the ledger keeps its records: memory holds one
batch.  One process of a ledger sends at a time; the others wait for its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.changes import Change, ChangeKind, Position, find_end, follow
from tornado_proxy.ledger.cursors import Cursor
from tornado_proxy.ledger.database import Backend, Database, StoreError
from tornado_proxy.telemetry.measurements import Measurement, make_measurements
from tornado_proxy.telemetry.names import Names
from tornado_proxy.telemetry.spans import Span, make_spans

CURSOR_NAME = "otlp"

#: Seconds between two reads of the ledger, and between two attempts, which are doubled.
POLL_S = 1.0
_MAX_WAIT_S = 30.0

#: The key of PostgreSQL's advisory lock: "otlp" in ASCII.
_LOCK_KEY = 0x6F74_6C70


class Sender(Protocol):
    """Sends spans and metrics (otlp.OtlpSender)."""

    def send_spans(self, spans: Sequence[Span]) -> bool:
        """Send spans; return False if the receiver has not taken them."""

    def record(self, measurements: Sequence[Measurement]) -> None:
        """Add measurements to the metrics."""

    def send_metrics(self) -> bool:
        """Send the metrics; return False if the receiver has not taken them."""


@dataclass(frozen=True, slots=True)
class Control:
    """How the loop waits and reports.

    Attributes:
        wait: Waits for some seconds; returns True if the loop has to end.
        report: Called with the number of requests that were sent, and the reason of a failure or "".
    """

    wait: Callable[[float], bool]
    report: Callable[[int, str], None]


class Follower:
    """Sends the changes of one ledger."""

    def __init__(self, backend: Backend, sender: Sender, naming: Names, control: Control) -> None:
        self._backend = backend
        self._sender = sender
        self._naming = naming
        self._control = control
        #: The position after a batch that was sent, while it is not stored: its measurements are recorded already.
        self._sent: Position | None = None

    def run(self) -> None:
        """Send changes until the loop has to end; then send the rest that the ledger has, once."""
        stopping = False
        while not stopping:
            try:
                with (
                    contextlib.closing(self._backend.connect(create=False)) as db,
                    _hold_lock(self._backend, db) as held,
                ):
                    stopping = self._run_connected(db) if held else self._control.wait(POLL_S)
            except (StoreError, LedgerUnavailable) as error:
                self._control.report(0, str(error))
                stopping = self._control.wait(_MAX_WAIT_S / 6)

    def _run_connected(self, db: Database) -> bool:
        cursor = Cursor(db, self._backend.dialect, CURSOR_NAME)
        position = cursor.read()
        if position is None:
            # Requests from before this was configured are not sent.
            position = cursor.move(find_end(self._backend), datetime.now(UTC))
        elif self._sent is not None:
            position = cursor.move(self._sent, datetime.now(UTC))
        stopping = False
        while True:
            for batch in follow(self._backend, position):
                if not self._send(batch.changes, may_wait=not stopping):
                    return True
                self._sent = batch.position
                position = cursor.move(batch.position, datetime.now(UTC))
            if stopping:
                return True
            stopping = self._control.wait(POLL_S)

    def _send(self, changes: Sequence[Change], *, may_wait: bool) -> bool:
        """Send a batch; return False if the loop has to end before the receiver has taken it."""
        spans = list(_list_spans(changes, self._naming))
        steps: list[Callable[[], bool]] = [partial(self._sender.send_spans, spans)]
        measurements = list(_list_measurements(changes, self._naming))
        if measurements:
            steps.append(self._sender.send_metrics)
        wait_s = POLL_S
        for number, step in enumerate(steps):
            if number == 1:
                self._sender.record(measurements)
            while not step():
                self._control.report(0, "the receiver does not take spans and metrics")
                if not may_wait or self._control.wait(wait_s):
                    return False
                wait_s = min(wait_s * 2, _MAX_WAIT_S)
        self._control.report(sum(change.kind is ChangeKind.RECORD for change in changes), "")
        return True


def _list_spans(changes: Sequence[Change], naming: Names) -> Iterator[Span]:
    for change in changes:
        if change.kind in (ChangeKind.RECORD, ChangeKind.LOST):
            yield from make_spans(change.row, naming)


def _list_measurements(changes: Sequence[Change], naming: Names) -> Iterator[Measurement]:
    for change in changes:
        yield from make_measurements(change.kind, change.row, naming)


@contextlib.contextmanager
def _hold_lock(backend: Backend, db: Database) -> Iterator[bool]:
    """Hold the lock of the process that sends; yield False if another process has it."""
    if backend.dialect.wait_for_writers:
        # It ends with the connection.
        ((is_free,),) = db.fetch_rows("SELECT pg_try_advisory_lock(?)", (_LOCK_KEY,))
        yield bool(is_free)
        return
    fd = os.open(f"{backend.files_path}-otlp", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
