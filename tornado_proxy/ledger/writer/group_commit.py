"""A ledger on one event loop behind one writer thread, which commits all that waits in one transaction.

    begin ──> intent log, one write         (an SQLite file without fsync)
    begin ──┐                               (all others)
    ask   ──┼──> end of the loop's turn ──┐
    finish ─┴──> 20 ms at the most ───────┴──> writer thread ─┬─ commit ──> futures done, in one call on the loop
                                                              └─ fault: intents fail (503), records are kept and
                                                                        tried again

While the store does not work, records that wait are also appended to a journal, so that a death of the process in that
state loses none; the next open() reads it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import PendingRequest, RequestIntent, RequestRecord, Settlement
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.rows import intent_row, record_row, settlement_row
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.open_intents import OpenIntents
from tornado_proxy.ledger.writer.operations import (
    MoveIntents,
    Operation,
    ReadStore,
    WithdrawIntent,
    WriteIntent,
    WriteRecord,
    WriteSettlement,
)
from tornado_proxy.ledger.writer.store import Opening, Store
from tornado_proxy.ledger.writer.write_queue import WriteQueue
from tornado_proxy.ledger.writer.writer_thread import Queue, Writer

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

#: Seconds after which a thread that waits for the interpreter's lock asks for it.  Python's own 5 ms start anew each
#: time the event loop looks for events, so that beside a loop without a pause the writer waited for seconds.
_SWITCH_S = 0.00005


@dataclass(frozen=True, slots=True)
class LedgerTimeouts:
    """Seconds.  `hangs_s` and `close_s` are above all time-outs of the stores: past them a disk or a server hangs.

    watch_s: between two looks at the writer and at the intent log
    hangs_s: without a word from the writer, until new requests are turned away
    close_s: for the writer to end; then the process ends without it
    """

    watch_s: float = 1.0
    hangs_s: float = 15.0
    close_s: float = 20.0


DEFAULT_TIMEOUTS = LedgerTimeouts()


class GroupCommitLedger:
    """A Ledger (ledger.ledger) in any store.  `logs_intents`: they go to a log beside it, not into it at once."""

    def __init__(
        self,
        opening: Opening,
        reads: UsageReaderThread,
        *,
        logs_intents: bool,
        patience: LedgerTimeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self._opening = opening
        self._reads = reads
        self._patience = patience
        self._intents = OpenIntents(opening.files) if logs_intents else None
        self._intents_reason = ""
        self._entries: Queue = queue.SimpleQueue()
        self._hand_over: WriteQueue | None = None
        self._writer: Writer | None = None
        self._thread: threading.Thread | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._shut = "not open"

    @property
    def healthy(self) -> bool:
        """Whether the last write worked."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it did not."""
        if self._shut or self._hand_over is None:
            return self._shut
        return self._hand_over.reason or self._intents_reason

    @property
    def pending(self) -> int:
        """Writes that wait for their commit."""
        return self._hand_over.pending if self._hand_over is not None else 0

    async def open(self) -> None:
        """Open the store, write what files of dead processes hold, and call their intents lost."""
        loop = asyncio.get_running_loop()
        try:
            store = await asyncio.to_thread(self._open_store)
        except StoreError as error:
            raise LedgerUnavailable(str(error)) from error
        except OSError as error:
            raise LedgerUnavailable(_describe(self._opening.name, error)) from error
        self._hand_over = WriteQueue(loop, self._entries, hangs_s=self._patience.hangs_s)
        self._writer = Writer(store, self._entries, self._hand_over)
        self._thread = threading.Thread(target=self._writer.run, name="ledger", daemon=True)
        sys.setswitchinterval(min(_SWITCH_S, sys.getswitchinterval()))
        self._thread.start()
        self._shut = ""
        self._watching = loop.call_later(self._patience.watch_s, self._watch)

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent; durable when this returns."""
        reason = self.reason
        if reason:
            raise LedgerUnavailable(f"no new requests while the ledger cannot be written: {reason}")
        if self._intents is not None:
            self._log_intent(self._intents, intent)
            return
        try:
            await self._put(WriteIntent(intent_row(intent)))
        except asyncio.CancelledError:
            # Nobody will send it; its intent must not be taken for lost when the process ends.
            self._put(WithdrawIntent(intent.request_id))
            raise

    def finish(self, record: RequestRecord) -> asyncio.Future[None]:
        """Store a record; after close() in the journal, for the next open()."""
        row = record_row(record)
        if self._shut:
            return self._finish_late(row)
        done = self._put(WriteRecord(row))
        if self._intents is not None:
            self._intents.end(record.intent.request_id)
        return done

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store what a pending call came to."""
        return self._put(WriteSettlement(settlement_row(settlement)))

    async def pending_requests(self, limit: int) -> list[PendingRequest]:
        """Calls whose usage is still to come."""
        return await self._ask(lambda store: store.pending(limit))

    async def owner_of(self, provider: str, object_id: str) -> str | None:
        """The project that created an object."""
        return await self._ask(lambda store: store.owner(provider, object_id))

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""
        return await self._ask(lambda store: store.owned(project_id, provider, endpoint))

    async def usage(self, question: UsageQuery) -> UsageResult:
        """What usage comes to."""
        return await self._reads.ask(question)

    async def close(self) -> None:
        """Write what waits and end the threads."""
        self._reads.close()
        if self._thread is None or self._hand_over is None or self._writer is None:
            return
        thread, self._thread = self._thread, None
        self._shut = "closed"
        if self._watching is not None:
            self._watching.cancel()
        if self._intents is not None:
            self._writer.leaves_files = self._intents.close()
        self._hand_over.close()
        await asyncio.to_thread(thread.join, self._patience.close_s)
        if thread.is_alive():
            _log.critical(
                "the ledger's writer does not end; closing without it", extra={"pending": self._hand_over.pending}
            )

    def _log_intent(self, intents: OpenIntents, intent: RequestIntent) -> None:
        try:
            intents.begin(intent)
        except OSError as error:
            self._intents_failed(error)
            raise LedgerUnavailable(f"the ledger cannot be written: {self._intents_reason}") from error
        # This request is stored.  A file that cannot be followed by another grows on until it can.
        with contextlib.suppress(OSError):
            turned = intents.turn()
            if turned is not None:
                moved = self._put(MoveIntents(turned.under_way))
                moved.add_done_callback(lambda done: _remove(turned.file, done))

    def _finish_late(self, row: dict[str, object]) -> asyncio.Future[None]:
        files = self._opening.files
        Journal(files.journal(files.own)).append([row])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _watch(self) -> None:
        assert self._hand_over is not None
        self._watching = asyncio.get_running_loop().call_later(self._patience.watch_s, self._watch)
        self._hand_over.check_writer()
        if self._intents is None or not self._intents_reason:
            return
        try:
            self._intents.check()
        except OSError as error:
            self._intents_failed(error)
        else:
            self._intents_reason = ""
            _log.warning("the ledger can be written again")

    def _intents_failed(self, error: OSError) -> None:
        reason = _describe(self._opening.name, error)
        if reason != self._intents_reason:
            _log.error("the ledger cannot be written", extra={"reason": reason})
            self._intents_reason = reason

    async def _ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        answer: _Answer = await self._put(ReadStore(question))
        return answer

    def _put(self, operation: Operation) -> asyncio.Future[Any]:
        if self._shut or self._hand_over is None:
            raise LedgerUnavailable("the ledger is closed")
        return self._hand_over.put(operation)

    def _open_store(self) -> Store:
        store = Store(self._opening)
        try:
            store.settle_orphans(datetime.now(UTC))
            if self._intents is not None:
                self._intents.open()
        except BaseException:
            store.close()
            raise
        return store


def _remove(file: Path, moved: asyncio.Future[object]) -> None:
    """Remove a log file when its intents have been moved; else it stays for the next start."""
    if not moved.cancelled() and moved.exception() is None:
        file.unlink(missing_ok=True)


def _describe(name: str, error: OSError) -> str:
    """What is wrong with the files beside the ledger, and what an operator can do."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{name}: its folder cannot be written ({where}{error.strerror}); check owner, mode and free space"
