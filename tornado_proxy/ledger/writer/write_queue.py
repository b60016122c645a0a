"""The event loop's end of the writer's queue: gathers entries, hands them over together, tells who waits for them.

Waking the writer costs a hand-off of the interpreter's lock there and one back, tens of microseconds of CPU; so it is
done once for all entries of a turn of the loop, and for records once in 20 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.writer.writer_thread import Entry, Queue

_log = logging.getLogger(__name__)

#: Seconds that a record waits for company at the most; durable within 100 ms of its end is what is promised.
_COMPANY_S = 0.02

#: Entries that are handed over without more waiting.
_MANY = 500


class WriteQueue:
    """Satisfies writer.Report; those three methods are called in the writer thread, all others in the loop's.

    `hangs_s`: seconds that the writer says nothing, though something waits for it, until new requests are turned away.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, entries: Queue, *, hangs_s: float) -> None:
        self.reason = ""
        self.pending = 0
        self._loop = loop
        self._hangs_s = hangs_s
        self._queue = entries
        self._gathered: list[Entry] = []
        self._timer: asyncio.Handle | None = None
        self._soon = False
        self._heard_at = 0.0
        self._refusable: set[Entry] = set()

    def put(self, entry: Entry) -> asyncio.Future[Any]:
        """Give an entry to the writer: a record with others, anything else at the end of the loop's turn."""
        done = entry.done = self._loop.create_future()
        if not self.pending:
            self._heard_at = self._loop.time()
        self.pending += 1
        self._gathered.append(entry)
        if not entry.kept:
            self._refusable.add(entry)
        if entry.record is None or len(self._gathered) == _MANY:
            self._flush_soon()
        elif self._timer is None:
            self._timer = self._loop.call_later(_COMPANY_S, self.flush)
        return done

    def flush(self) -> None:
        """Hand over what has been gathered."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._soon = None, False
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def close(self) -> None:
        """Hand over the rest, and have the writer end."""
        self.flush()
        self._queue.put(None)

    def watch(self) -> None:
        """Turn away what waits for a writer that hangs, and what would."""
        silent_s = self._loop.time() - self._heard_at
        if not self.pending or silent_s < self._hangs_s:
            return
        self._fail(f"no answer for {silent_s:.0f} seconds: its disk or server hangs")
        for entry in list(self._refusable):
            self._refuse(entry)
            if entry.intent is not None:
                # It may yet be written, though nobody will send it.
                self.put(Entry(withdrawn=str(entry.intent["request_id"])))

    def written(self, entries: Sequence[Entry], answers: Sequence[object]) -> None:
        """They are durable."""
        self._call(lambda: self._written(entries, answers))

    def refused(self, entries: Sequence[Entry], reason: str, *, failing: bool) -> None:
        """They are not stored."""
        self._call(lambda: self._refused(entries, reason, failing=failing))

    def journaled(self, entries: Sequence[Entry]) -> None:
        """They are in the journal."""
        self._call(lambda: self._journaled(entries))

    def _call(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call)

    def _flush_soon(self) -> None:
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self.flush)

    def _written(self, entries: Sequence[Entry], answers: Sequence[object]) -> None:
        self.reason = ""
        self._ended(entries)
        for entry, answer in zip(entries, answers, strict=True):
            if entry.done is not None and not entry.done.done():
                entry.done.set_result(answer)

    def _refused(self, entries: Sequence[Entry], reason: str, *, failing: bool) -> None:
        if failing:
            self._fail(reason)
        self._ended(entries)
        for entry in entries:
            self._refuse(entry, reason)

    def _journaled(self, entries: Sequence[Entry]) -> None:
        self._ended(entries)
        for entry in entries:
            if entry.done is not None:
                entry.done.cancel()

    def _ended(self, entries: Sequence[Entry]) -> None:
        self._heard_at = self._loop.time()
        self.pending -= sum(entry.done is not None for entry in entries)
        if self._refusable:
            self._refusable.difference_update(entries)

    def _fail(self, reason: str) -> None:
        if reason != self.reason:
            _log.error("the ledger cannot be written", extra={"reason": reason})
            self.reason = reason

    def _refuse(self, entry: Entry, reason: str = "") -> None:
        if entry.done is not None and not entry.done.done():
            entry.done.set_exception(LedgerUnavailable(f"the ledger cannot be written: {reason or self.reason}"))
