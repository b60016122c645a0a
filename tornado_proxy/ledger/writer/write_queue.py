"""The event loop's end of the writer's queue: it gathers operations into batches and completes their futures.

Waking the writer thread costs two hand-offs of the interpreter's lock, tens of microseconds of CPU.  So all operations
of one turn of the event loop are queued as one batch, and records wait up to BATCH_DELAY_S for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.writer.operations import Operation, QueueItem, make_withdrawal
from tornado_proxy.ledger.writer.writer_thread import Queue

_log = logging.getLogger(__name__)

#: Seconds that a record waits for others.  The ledger promises that it is durable within 100 ms.
BATCH_DELAY_S = 0.04

#: Records that are queued without further delay.
BATCH_SIZE = 500


class WriteQueue:
    """Queues operations, and receives their results as the writer's Report.

    The methods of Report are called in the writer thread, all others in the thread of the event loop.

    Args:
        loop: the event loop of the futures.
        items: the queue that the writer thread reads.
        hangs_s: seconds without a result, while operations wait, after which the writer counts as hanging.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, items: Queue, *, hangs_s: float) -> None:
        self.reason = ""
        self.pending = 0
        self._loop = loop
        self._hangs_s = hangs_s
        self._queue = items
        self._batch: list[QueueItem] = []
        self._timer: asyncio.Handle | None = None
        self._flush_is_due = False
        self._last_report_at = 0.0
        self._refusable: set[QueueItem] = set()

    def put(self, operation: Operation) -> asyncio.Future[Any]:
        """Queue an operation and return the future of its result.

        A record may wait for others.  Any other operation is queued at the end of this turn of the event loop, with
        the records that wait.
        """
        done = self._loop.create_future()
        item = QueueItem(operation, done)
        if not self.pending:
            self._last_report_at = self._loop.time()
        self.pending += 1
        self._batch.append(item)
        if not operation.retried:
            self._refusable.add(item)
        if not operation.waits or len(self._batch) == BATCH_SIZE:
            self._flush_soon()
        elif self._timer is None:
            self._timer = self._loop.call_later(BATCH_DELAY_S, self.flush)
        return done

    def flush(self) -> None:
        """Queue the batch now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._flush_is_due = None, False
        if self._batch:
            self._queue.put(self._batch)
            self._batch = []

    def close(self) -> None:
        """Queue the last batch and close the queue; the writer ends after it."""
        self.flush()
        self._queue.put(None)

    def check_writer(self) -> None:
        """Refuse the waiting intents and queries if the writer hangs; called about once a second."""
        silent_s = self._loop.time() - self._last_report_at
        if not self.pending or silent_s < self._hangs_s:
            return
        self._fail(f"no response for {silent_s:.0f} seconds: its disk or server hangs")
        for item in list(self._refusable):
            self._refuse(item)
            withdrawal = make_withdrawal(item.operation)
            if withdrawal is not None:
                # The writer may still commit the intent, but its request is not sent.
                self.put(withdrawal)

    def written(self, items: Sequence[QueueItem]) -> None:
        """Complete the futures of durable operations."""
        self._call_in_loop(lambda: self._written(items))

    def refused(self, items: Sequence[QueueItem], reason: str, *, failing: bool) -> None:
        """Fail the futures of refused operations with LedgerUnavailable."""
        self._call_in_loop(lambda: self._refused(items, reason, failing=failing))

    def journaled(self, items: Sequence[QueueItem]) -> None:
        """Cancel the futures of operations that this process does not write any more."""
        self._call_in_loop(lambda: self._journaled(items))

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nothing awaits the futures
            self._loop.call_soon_threadsafe(callback)

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    def _written(self, items: Sequence[QueueItem]) -> None:
        self.reason = ""
        self._count_done(items)
        for item in items:
            if item.done is not None and not item.done.done():
                item.done.set_result(item.result)

    def _refused(self, items: Sequence[QueueItem], reason: str, *, failing: bool) -> None:
        if failing:
            self._fail(reason)
        self._count_done(items)
        for item in items:
            self._refuse(item, reason)

    def _journaled(self, items: Sequence[QueueItem]) -> None:
        self._count_done(items)
        for item in items:
            if item.done is not None:
                item.done.cancel()

    def _count_done(self, items: Sequence[QueueItem]) -> None:
        self._last_report_at = self._loop.time()
        self.pending -= len([item for item in items if item.done is not None])
        if self._refusable:
            self._refusable.difference_update(items)

    def _fail(self, reason: str) -> None:
        # One line per reason: the writer reports the same fault at each retry.
        if reason != self.reason:
            _log.error("the ledger cannot be written", extra={"reason": reason})
            self.reason = reason

    def _refuse(self, item: QueueItem, reason: str = "") -> None:
        if item.done is not None and not item.done.done():
            refusal = "the ledger cannot be written"
            item.done.set_exception(LedgerUnavailable(f"{refusal}: {reason or self.reason}", client_message=refusal))
