"""The default ledger: one SQLite file behind one writer thread that commits all that waits in one transaction.

    begin ──┐                          ┌── commit ──> futures done, in one call on the loop
            ├──> queue ──> writer thread
    finish ─┘                          └── fault: intents fail (503), records are kept and tried again

While the store does not work, records that wait are also appended to a journal beside it, so that a death of the
process in that state loses none; the next open() reads it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tornado_proxy.domain.call import CallIntent, CallRecord, PendingCall, Settlement
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import intent_row, record_row, settlement_row
from tornado_proxy.ledger.store import Store
from tornado_proxy.ledger.usage import UsageAnswer, UsageQuestion
from tornado_proxy.ledger.usage_reads import UsageReads
from tornado_proxy.ledger.writer import Entry, Writer

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

#: Seconds after which a thread that waits for the interpreter's lock asks for it.  Python's own 5 ms start anew each
#: time the event loop looks for events, so that beside a loop without a pause the writer waited for seconds.
_SWITCH_S = 0.00005


class SqliteLedger:
    """A Ledger in one SQLite file.  Several processes may share the file."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self._path = path
        self._fsync = fsync
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._reason = "not open"
        self._pending = 0
        self._journal_path: Path | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reads = UsageReads(path)

    @property
    def healthy(self) -> bool:
        """Whether the last write worked."""
        return not self._reason

    @property
    def reason(self) -> str:
        """Why it did not."""
        return self._reason

    @property
    def pending(self) -> int:
        """Writes that wait for their commit."""
        return self._pending

    async def open(self) -> None:
        """Open the file, write what a journal holds, settle the intents of dead processes."""
        self._loop = asyncio.get_running_loop()
        try:
            store = await asyncio.to_thread(self._open_store)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnavailable(describe(self._path, error)) from error
        self._reason = ""
        self._journal_path = store.journal_path
        sys.setswitchinterval(min(_SWITCH_S, sys.getswitchinterval()))
        writer = Writer(store, self._queue, _OnLoop(self._loop, self))
        self._thread = threading.Thread(target=writer.run, name="ledger", daemon=True)
        self._thread.start()

    async def begin(self, intent: CallIntent) -> None:
        """Store an intent; durable when this returns."""
        if self._reason:
            raise LedgerUnavailable(f"no new requests while the ledger cannot be written: {self._reason}")
        try:
            await self._put(Entry(self._future(), intent=intent_row(intent)))
        except asyncio.CancelledError:
            # Nobody will send it; its intent must not be taken for lost when the process ends.
            self._put(Entry(self._future(), withdrawn=intent.request_id))
            raise

    def finish(self, record: CallRecord) -> asyncio.Future[None]:
        """Store a record; after close() in the journal, for the next open()."""
        entry = Entry(self._future(), record=record_row(record))
        if self._thread is not None:
            return self._put(entry)
        assert self._journal_path is not None, "open() comes first"
        Journal(self._journal_path).keep([record_row(record)])
        entry.done.set_result(None)
        return entry.done

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store what a pending call came to."""
        return self._put(Entry(self._future(), settlement=settlement_row(settlement)))

    async def pending_calls(self, most: int) -> list[PendingCall]:
        """Calls whose usage is still to come."""
        return await self._ask(lambda store: store.pending(most))

    async def owner_of(self, provider: str, object_id: str) -> str | None:
        """The project that created an object."""
        return await self._ask(lambda store: store.owner(provider, object_id))

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""
        return await self._ask(lambda store: store.owned(project_id, provider, endpoint))

    async def usage(self, question: UsageQuestion) -> UsageAnswer:
        """What usage comes to."""
        return await self._reads.ask(question)

    async def close(self) -> None:
        """Write what waits and end the threads."""
        self._reads.close()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(thread.join)
        self._reason = "closed"

    async def _ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        answer: _Answer = await self._put(Entry(self._future(), ask=question))
        return answer

    def _future(self) -> asyncio.Future[Any]:
        assert self._loop is not None, "open() comes first"
        return self._loop.create_future()

    def _put(self, entry: Entry) -> asyncio.Future[Any]:
        if self._thread is None:
            raise LedgerUnavailable("the ledger is closed")
        self._pending += 1
        self._queue.put(entry)
        return entry.done

    def _open_store(self) -> Store:
        store = Store(self._path, fsync=self._fsync)
        try:
            settled = store.settle_orphans(datetime.now(UTC))
        except BaseException:
            store.close()
            raise
        if settled:
            _log.warning("requests of a process that died are unsettled", extra={"unsettled": settled})
        return store

    # What the writer reports, on the loop.

    def _written(self, entries: Sequence[Entry], answers: Sequence[object]) -> None:
        self._reason = ""
        self._pending -= len(entries)
        for entry, answer in zip(entries, answers, strict=True):
            if not entry.done.done():
                entry.done.set_result(answer)

    def _refused(self, entries: Sequence[Entry], error: Exception, *, failing: bool) -> None:
        reason = describe(self._path, error)
        if failing and reason != self._reason:
            _log.error("the ledger cannot be written", extra={"reason": reason})
            self._reason = reason
        self._pending -= len(entries)
        for entry in entries:
            if not entry.done.done():
                entry.done.set_exception(LedgerUnavailable(f"the ledger cannot be written: {reason}"))

    def _journaled(self, entries: Sequence[Entry]) -> None:
        self._pending -= len(entries)
        for entry in entries:
            entry.done.cancel()


class _OnLoop:
    """Carries the writer's reports to the event loop, each batch in one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: SqliteLedger) -> None:
        self._loop = loop
        self._ledger = ledger

    def written(self, entries: Sequence[Entry], answers: Sequence[object]) -> None:
        self._call(lambda: self._ledger._written(entries, answers))

    def refused(self, entries: Sequence[Entry], error: Exception, *, failing: bool) -> None:
        self._call(lambda: self._ledger._refused(entries, error, failing=failing))

    def journaled(self, entries: Sequence[Entry]) -> None:
        self._call(lambda: self._ledger._journaled(entries))

    def _call(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call)


def describe(path: Path, error: Exception) -> str:
    """What is wrong with the file, and what an operator can do."""
    text = str(error).lower()
    if "disk is full" in text or "disk i/o" in text or "no space" in text:
        return f"{path}: the disk is full or broken ({error}); free space on it"
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return f"{path}: cannot be opened for writing ({error}); check the owner and mode of the file and its folder"
    if "locked" in text or "busy" in text:
        return f"{path}: another program holds the file ({error}); end what keeps it locked"
    if "newer than this program" in text:
        return f"{path}: {error}; install the version that wrote it, or a later one"
    if "not a database" in text or "malformed" in text:
        return f"{path}: is damaged or no ledger ({error}); restore a backup, or move it away to begin a new one"
    return f"{path}: {error}"
