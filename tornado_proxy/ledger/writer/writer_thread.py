"""The thread that writes: takes all that waits, commits it in one transaction, and keeps what the store refuses.

            ┌────────────── entries ──────────────┐
            v                                     │
    works ──┴─ fault ──> fails: intents refused, records journaled, tried again after a wait that grows
      ^                    │
      └──── commit ────────┘

An entry that cannot be stored for what it says fails alone; it stops neither the others nor the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.rows import Row, plain_row
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.store import Batch, Store

_log = logging.getLogger(__name__)

#: Seconds between two tries while the store does not work: the first wait, doubled each time, and the longest.
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 4.0

#: Seconds without entries after which the store is looked at, so that readiness tells of it before a request does.
_IDLE_S = 1.0

#: Seconds between two searches for dead processes, and until the first: a server may need some to find a death.
_SEARCH_S = 60.0
_FIRST_SEARCH_S = 5.0

#: Entries of one transaction at the most, so that a batch stays far below 100 ms.
_BATCH = 2000

#: Entries that wait in memory at the most while the store does not work; more wait in the journal alone.
_MOST_KEPT = 20_000


@dataclass(slots=True, eq=False)
class Entry:
    """One thing to do that waits; exactly one of the others is set beside `done`, for which somebody may wait.

    `moved` are intents that a log has held until now.  `ask` reads the store, after all that was put before it has been
    written.
    """

    done: asyncio.Future[Any] | None = None
    intent: Row | None = None
    moved: Sequence[Row] | None = None
    record: Row | None = None
    settlement: Row | None = None
    withdrawn: str | None = None
    ask: Callable[[Store], object] | None = None

    @property
    def kept(self) -> bool:
        """Whether it is tried again until it works: what was paid for must not be lost."""
        return self.intent is None and self.ask is None

    def make_plain(self) -> bool:
        """Replace what a store cannot hold; whether there was anything."""
        before = (self.intent, self.record, self.settlement)
        self.intent, self.record, self.settlement = (None if row is None else plain_row(row) for row in before)
        return before != (self.intent, self.record, self.settlement)


class Report(Protocol):
    """Who is told how entries ended.  Called in the writer thread."""

    def written(self, entries: Sequence[Entry], answers: Sequence[object]) -> None:
        """They are durable; an answer for each `ask`, None for the others."""

    def refused(self, entries: Sequence[Entry], reason: str, *, failing: bool) -> None:
        """They are not stored and will not be; `failing`: nor would others be."""

    def journaled(self, entries: Sequence[Entry]) -> None:
        """They are in the journal, and will be stored when the store works again or is opened next."""


#: What the loop hands over at once; None closes the queue.
Queue = queue.SimpleQueue[list[Entry] | None]


class Writer:
    """The body of the writer thread: run() returns when None comes out of the queue."""

    def __init__(self, store: Store, entries: Queue, report: Report) -> None:
        self._store = store
        self._journal = Journal(store.journal_path)
        self._queue = entries
        self._report = report
        self._wait_s = 0.0  # 0 while the store works
        self._retry_at = 0.0
        self._search_at = time.monotonic() + _FIRST_SEARCH_S
        self._reason = ""
        self._spilled = False
        #: Whether files beside the ledger hold something when the thread ends; set before the queue is closed.
        self.leaves_files = False

    def run(self) -> None:
        """Write until the queue is closed; what cannot be written then stays in the journal."""
        self._journal.reserve()
        kept: list[Entry] = []
        more = True
        while more:
            fresh, more = self._collect()
            if more and time.monotonic() < self._retry_at:
                kept = self._hold(kept + fresh)
            else:
                kept = self._write_all(kept + fresh)
        self._leave(kept)

    def _leave(self, kept: list[Entry]) -> None:
        for entry in kept:
            if entry.record is not None and not self._journal.holds(entry.record):
                _log.critical("a record could be kept nowhere but here", extra={"record": entry.record})
        self._report.journaled(kept)
        with contextlib.suppress(StoreError, OSError):
            self._store.close(keep_files=self.leaves_files or bool(kept) or self._spilled)

    def _collect(self) -> tuple[list[Entry], bool]:
        """All that is there; and whether the queue is still open."""
        fresh: list[Entry] = []
        wait_s = max(0.0, self._retry_at - time.monotonic()) if self._wait_s else _IDLE_S
        with contextlib.suppress(queue.Empty):
            entries = self._queue.get(timeout=wait_s)
            while entries is not None:
                fresh += entries
                if len(fresh) >= _BATCH:
                    return fresh, True
                entries = self._queue.get_nowait()
            return fresh, False
        return fresh, True

    def _write_all(self, entries: list[Entry]) -> list[Entry]:
        """Write them, batch after batch; gives those that must be tried again."""
        if self._wait_s and not self._recovered():
            return self._hold(entries)
        if (not entries or time.monotonic() > self._search_at) and not self._works():
            return self._hold(entries)
        for at in range(0, len(entries), _BATCH):
            left = self._write(entries[at : at + _BATCH])
            if left:
                return self._hold(left + entries[at + _BATCH :])
        self._journal.clear()
        return []

    def _works(self) -> bool:
        """Look at the store, and from time to time for what dead processes left."""
        try:
            self._store.check()
            if time.monotonic() > self._search_at:
                self._search_at = time.monotonic() + _SEARCH_S
                self._store.settle_orphans(datetime.now(UTC))
        except Exception as error:  # noqa: BLE001  # whatever it is, the thread lives and tries again
            self._fail(error)
            return False
        return True

    def _recovered(self) -> bool:
        try:
            self._store.reopen()
            self._store.probe(datetime.now(UTC))
            if self._spilled:
                self._write_journal()
        except Exception as error:  # noqa: BLE001  # whatever it is, the thread lives and tries again
            self._fail(error)
            return False
        self._spilled = False
        self._wait_s = self._retry_at = 0.0
        _log.warning("the ledger is back")
        self._report.written((), ())
        return True

    def _write_journal(self) -> None:
        rows = self._journal.read()
        while batch := list(islice(rows, _BATCH)):
            self._store.write(Batch(records=batch))

    def _write(self, entries: list[Entry]) -> list[Entry]:
        """Commit entries in one transaction; gives back what must be tried again when the store is at fault."""
        try:
            self._store.write(_batch(entries))
        except (StoreError, OSError, MemoryError) as error:
            self._fail(error)
            return self._refuse_intents(entries)
        except Exception as error:  # noqa: BLE001  # one entry is at fault; the thread must outlive it
            return self._write_one_by_one(entries, error)
        self._answer(entries)
        return []

    def _refuse_intents(self, entries: list[Entry]) -> list[Entry]:
        """Refuse the intents of a transaction whose end is not known: it may have been committed all the same.

        An intent that nobody sent must not be taken for a lost one, so it is withdrawn when the store is back.
        """
        refused = [entry for entry in entries if entry.intent is not None]
        self._report.refused(refused, self._reason, failing=True)
        withdrawn = [Entry(withdrawn=str(entry.intent["request_id"])) for entry in refused if entry.intent]
        return [entry for entry in entries if entry.intent is None] + withdrawn

    def _write_one_by_one(self, entries: list[Entry], error: Exception) -> list[Entry]:
        if len(entries) > 1:
            return [left for entry in entries for left in self._write([entry])]
        (entry,) = entries
        if entry.make_plain():
            return self._write(entries)
        _log.error("an entry cannot be stored in the ledger", extra={"reason": repr(error)})
        self._report.refused(entries, repr(error), failing=False)
        return []

    def _answer(self, entries: list[Entry]) -> None:
        written: list[Entry] = []
        answers: list[object] = []
        for entry in entries:
            try:
                answer = None if entry.ask is None else entry.ask(self._store)
            except Exception as error:  # noqa: BLE001  # one question is at fault; the thread must outlive it
                self._report.refused([entry], str(error), failing=False)
                continue
            written.append(entry)
            answers.append(answer)
        self._report.written(written, answers)

    def _hold(self, entries: list[Entry]) -> list[Entry]:
        """Refuse what nobody has paid for, journal and keep the rest; the oldest go when there are too many."""
        refused = [entry for entry in entries if not entry.kept]
        if refused:
            self._report.refused(refused, self._reason, failing=True)
        kept = [entry for entry in entries if entry.kept]
        self._journal.keep([entry.record for entry in kept if entry.record is not None])
        return self._spill(kept)

    def _spill(self, kept: list[Entry]) -> list[Entry]:
        if len(kept) <= _MOST_KEPT:
            return kept
        spilled = [entry for entry in kept if entry.record is not None and self._journal.holds(entry.record)]
        self._spilled = self._spilled or bool(spilled)
        self._report.journaled(spilled)
        gone = set(spilled)
        return [entry for entry in kept if entry not in gone]

    def _fail(self, error: Exception) -> None:
        self._reason = str(error) if isinstance(error, StoreError) else repr(error)
        self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S) or _FIRST_WAIT_S
        self._retry_at = time.monotonic() + self._wait_s
        self._report.refused((), self._reason, failing=True)


def _batch(entries: Sequence[Entry]) -> Batch:
    return Batch(
        intents=[
            *(entry.intent for entry in entries if entry.intent is not None),
            *(row for entry in entries for row in entry.moved or ()),
        ],
        records=[entry.record for entry in entries if entry.record is not None],
        settlements=[entry.settlement for entry in entries if entry.settlement is not None],
        withdrawn=[entry.withdrawn for entry in entries if entry.withdrawn is not None],
    )
