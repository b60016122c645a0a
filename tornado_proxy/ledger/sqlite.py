"""The default ledger: one SQLite file behind one writer thread that commits all that waits in one transaction.

    begin ──┐                          ┌── commit ──> futures done, in one call on the loop
            ├──> queue ──> writer thread
    finish ─┘                          └── fault: intents fail (503), records are kept and tried again

The queue has no limit of its own: it holds what calls in flight produce, and their number is limited.  While the store
does not work, records that wait are also appended to a journal beside it, so that a death of the process in that state
loses none; the next open() reads it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tornado_proxy.domain.call import CallIntent, CallRecord, PendingCall, Settlement
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import Row, intent_row, object_rows, record_row, settlement_row
from tornado_proxy.ledger.store import Store

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

#: Seconds between two tries while the store does not work.
_RETRY_S = 0.5

#: Entries of one transaction at the most, so that a batch stays far below 100 ms.
_BATCH = 2000


@dataclass(slots=True)
class _Entry:
    """One thing to do that waits; exactly one of `intent`, `record`, `settlement` and `ask` is set.

    `objects` go with a record.  `ask` reads the store, after all that was put before it has been written.
    """

    done: asyncio.Future[Any]
    intent: Row | None = None
    record: Row | None = None
    objects: Sequence[Row] = ()
    settlement: Row | None = None
    ask: Callable[[Store], object] | None = None

    @property
    def kept(self) -> bool:
        """Whether it is tried again until it works: what was paid for must not be lost."""
        return self.record is not None or self.settlement is not None


class SqliteLedger:
    """A Ledger in one SQLite file."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self._path = path
        self._fsync = fsync
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._reason = "not open"
        self._pending = 0
        self._store: Store | None = None
        self._journal: Journal | None = None
        self._failing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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
            await asyncio.to_thread(self._open_store)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnavailable(describe(self._path, error)) from error
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    async def begin(self, intent: CallIntent) -> None:
        """Store an intent; durable when this returns."""
        if self._reason:
            raise LedgerUnavailable(f"no new requests while the ledger cannot be written: {self._reason}")
        await self._put(_Entry(self._future(), intent=intent_row(intent)))

    def finish(self, record: CallRecord) -> asyncio.Future[None]:
        """Store a record."""
        return self._put(_Entry(self._future(), record=record_row(record), objects=object_rows(record)))

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store what a pending call came to."""
        return self._put(_Entry(self._future(), settlement=settlement_row(settlement)))

    async def pending_calls(self, most: int) -> list[PendingCall]:
        """Calls whose usage is still to come."""
        return await self._ask(lambda store: store.pending(most))

    async def owner_of(self, provider: str, object_id: str) -> str | None:
        """The project that created an object."""
        return await self._ask(lambda store: store.owner(provider, object_id))

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""
        return await self._ask(lambda store: store.owned(project_id, provider, endpoint))

    async def close(self) -> None:
        """Write what waits and end the thread."""
        if self._thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        self._reason = "closed"

    async def _ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        answer: _Answer = await self._put(_Entry(self._future(), ask=question))
        return answer

    def _future(self) -> asyncio.Future[Any]:
        assert self._loop is not None, "open() comes first"
        return self._loop.create_future()

    def _put(self, entry: _Entry) -> asyncio.Future[Any]:
        self._pending += 1
        self._queue.put(entry)
        return entry.done

    # All below runs in the writer thread.

    def _open_store(self) -> None:
        store = self._store = Store(self._path, fsync=self._fsync)
        self._journal = Journal(store.journal_path)
        settled = store.settle_orphans(datetime.now(UTC))
        if settled:
            _log.warning("requests of a process that died are unsettled", extra={"unsettled": settled})

    def _run(self) -> None:
        waiting: list[_Entry] = []
        more = True
        while more:
            more = self._collect(waiting)
            waiting = self._write(waiting)
        assert self._store is not None
        with contextlib.suppress(sqlite3.Error):
            self._store.close(keep_lock_file=bool(waiting))

    def _collect(self, waiting: list[_Entry]) -> bool:
        """Wait for an entry and take all that is there; False when the queue is closed.

        While the store fails the wait is short, so that what waits, or else nothing at all, is tried again.
        """
        with contextlib.suppress(queue.Empty):
            entry = self._queue.get(timeout=_RETRY_S if self._failing else None)
            while entry is not None:
                waiting.append(entry)
                if len(waiting) >= _BATCH:
                    return True
                entry = self._queue.get_nowait()
            return False
        return True

    def _write(self, entries: list[_Entry]) -> list[_Entry]:
        """Commit `entries`; gives those that must be tried again."""
        assert self._store is not None
        assert self._journal is not None
        records = [entry.record for entry in entries if entry.record is not None]
        try:
            self._store.write(
                [entry.intent for entry in entries if entry.intent is not None],
                records,
                [row for entry in entries for row in entry.objects],
                [entry.settlement for entry in entries if entry.settlement is not None],
            )
            answers = [None if entry.ask is None else entry.ask(self._store) for entry in entries]
        except sqlite3.Error as error:
            self._failing = True
            self._journal.keep(records)
            return self._keep(entries, describe(self._path, error))
        self._journal.clear()
        if self._failing:
            self._failing = False
            _log.warning("the ledger is back")
        self._on_loop(lambda: self._written(entries, answers))
        return []

    def _keep(self, entries: list[_Entry], reason: str) -> list[_Entry]:
        if reason != self._reason:
            _log.error("the ledger cannot be written", extra={"reason": reason})
        refused = [entry for entry in entries if not entry.kept]
        self._on_loop(lambda: self._failed(refused, reason))
        return [entry for entry in entries if entry.kept]

    def _on_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call)

    # And this on the loop again.

    def _written(self, entries: list[_Entry], answers: list[object]) -> None:
        self._reason = ""
        self._pending -= len(entries)
        for entry, answer in zip(entries, answers, strict=True):
            if not entry.done.done():
                entry.done.set_result(answer)

    def _failed(self, refused: list[_Entry], reason: str) -> None:
        self._reason = reason
        self._pending -= len(refused)
        for entry in refused:
            if not entry.done.done():
                entry.done.set_exception(LedgerUnavailable(f"the ledger cannot be written: {reason}"))


def describe(path: Path, error: Exception) -> str:
    """What is wrong with the file, and what an operator can do."""
    text = str(error).lower()
    if "disk is full" in text or "disk i/o" in text:
        return f"{path}: the disk is full or broken ({error}); free space on it"
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return f"{path}: cannot be opened for writing ({error}); check the owner and mode of the file and its folder"
    if "locked" in text or "busy" in text:
        return f"{path}: another program holds the file ({error}); end what keeps it locked"
    if "not a database" in text or "malformed" in text:
        return f"{path}: is damaged or no ledger ({error}); restore a backup, or move it away to begin a new one"
    return f"{path}: {error}"
