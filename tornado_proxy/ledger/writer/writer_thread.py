"""The writer thread: it takes all queued operations, writes them in one transaction, and retries after a fault.

            ┌────────────── operations ───────────┐
            v                                     │
    works ──┴─ fault ──> fails: intents refused, records journaled, retried with a growing backoff
      ^                    │
      └──── commit ────────┘

An operation whose own values cannot be stored fails alone.  It stops neither the others nor the thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol, assert_never

from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.operations import (
    MoveIntents,
    QueueItem,
    ReadStore,
    WithdrawIntent,
    WriteIntent,
    WriteRecord,
    WriteSettlement,
    find_record,
    make_storable,
    make_withdrawal,
)
from tornado_proxy.ledger.writer.store import Batch, Store

_log = logging.getLogger(__name__)

#: Seconds between two attempts while the store fails: the first backoff; it doubles up to the maximum.
_MIN_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 4.0

#: Seconds without operations after which the store is checked, so that readiness reports a fault before a request does.
_IDLE_CHECK_S = 1.0

#: Seconds between two searches for dead processes, and until the first one.  The first is late because a database
#: server may need seconds to detect that the connection of a killed process is closed.
_SEARCH_INTERVAL_S = 60.0
_FIRST_SEARCH_S = 5.0

#: Seconds between two looks for processes of this machine that have died; if there is one, the search is due.
_LOOK_INTERVAL_S = 2.0

#: Seconds between two additions of records to the sums by hour and day; the second while there are many.
_ROLL_UP_S, _CATCH_UP_S = 5.0, 0.25

#: Operations of one transaction: one of 2000 takes far less than the 100 ms in which a record is durable.
MAX_TRANSACTION_OPERATIONS = 2000

#: Operations held in memory while the store fails, some 40 MB.  More records are held by the journal alone.
MAX_HELD_OPERATIONS = 20_000


class Report(Protocol):
    """Receives the results of operations.  Called in the writer thread."""

    def written(self, items: Sequence[QueueItem]) -> None:
        """Called when items are durable; each ReadStore has its result."""

    def refused(self, items: Sequence[QueueItem], reason: str, *, failing: bool) -> None:
        """Called when items are not stored and not retried; `failing` is True if the store fails for every item."""

    def journaled(self, items: Sequence[QueueItem]) -> None:
        """Called when items are left to the journal.  They are stored when the store recovers or is opened again."""


#: Batches from the event loop; None closes the queue.
Queue = queue.SimpleQueue[list[QueueItem] | None]


class Writer:
    """The body of the writer thread; run() returns after it reads None from the queue."""

    def __init__(self, store: Store, items: Queue, report: Report) -> None:
        self._store = store
        self._journal = Journal(store.journal_path)
        self._queue = items
        self._report = report
        self._backoff_s = 0.0  # 0 while the store works
        self._retry_at = 0.0
        self._search_at = time.monotonic() + _FIRST_SEARCH_S
        self._look_at = 0.0
        self._roll_up_at = time.monotonic() + _ROLL_UP_S
        self._reason = ""
        self._spilled = False
        #: True if the journal has records that the database may not have.
        self._journaled = False
        #: True if files beside the ledger hold intents when the thread ends.  Set before the queue is closed.
        self.leaves_files = False

    def run(self) -> None:
        """Write until the queue is closed; leave to the journal any record that cannot be written by then."""
        self._journal.reserve()
        held: list[QueueItem] = []
        is_open = True
        while is_open:
            new, is_open = self._collect()
            if is_open and time.monotonic() < self._retry_at:
                held = self._hold(held + new)
            else:
                held = self._write_all(held + new)
        self._finish(held)

    def _finish(self, held: list[QueueItem]) -> None:
        for item in held:
            record = find_record(item.operation)
            if record is not None and not self._journal.holds(record):
                # The last copy: an operator can enter the cost by hand.
                _log.critical(
                    "record lost from ledger and journal; the full record is in this line", extra={"record": record}
                )
        self._report.journaled(held)
        with contextlib.suppress(StoreError, OSError):
            self._store.close(keep_files=self.leaves_files or bool(held) or self._spilled)

    def _collect(self) -> tuple[list[QueueItem], bool]:
        """Return all queued items, and True if the queue is still open."""
        new: list[QueueItem] = []
        timeout_s = max(0.0, self._retry_at - time.monotonic()) if self._backoff_s else _IDLE_CHECK_S
        with contextlib.suppress(queue.Empty):
            items = self._queue.get(timeout=timeout_s)
            while items is not None:
                new += items
                if len(new) >= MAX_TRANSACTION_OPERATIONS:
                    return new, True
                items = self._queue.get_nowait()
            return new, False
        return new, True

    def _write_all(self, items: list[QueueItem]) -> list[QueueItem]:
        """Write items, batch after batch; return those that must be retried."""
        if self._backoff_s and not self._recover():
            return self._hold(items)
        if (not items or time.monotonic() > self._search_at) and not self._check():
            return self._hold(items)
        for start in range(0, len(items), MAX_TRANSACTION_OPERATIONS):
            end = start + MAX_TRANSACTION_OPERATIONS
            unwritten = self._write(items[start:end])
            if unwritten:
                return self._hold(unwritten + items[end:])
        if self._journaled:
            self._journal.clear()
            self._journaled = False
        if time.monotonic() > self._roll_up_at:
            self._roll_up()
        if time.monotonic() > self._look_at:
            self._look_for_dead()
        return []

    def _look_for_dead(self) -> None:
        """Let the next search be due if a process of this machine has died: what it reserved is freed after that."""
        self._look_at = time.monotonic() + _LOOK_INTERVAL_S
        with contextlib.suppress(OSError):
            if self._store.has_dead_neighbors():
                self._search_at = 0.0

    def _roll_up(self) -> None:
        """Add records to the sums by hour and day; reports read those that are not added themselves."""
        try:
            more = self._store.roll_up()
        except (StoreError, OSError, MemoryError) as error:
            self._fail(error)
            return
        except Exception as error:  # noqa: BLE001  # the thread must survive a record that cannot be added
            _log.error("records cannot be added to the sums of the ledger", extra={"reason": repr(error)})
            self._roll_up_at = float("inf")
            return
        self._roll_up_at = time.monotonic() + (_CATCH_UP_S if more else _ROLL_UP_S)

    def _check(self) -> bool:
        """Check the store, and settle the intents of dead processes if it is time; return True if both work."""
        try:
            self._store.check()
            if time.monotonic() > self._search_at:
                self._search_at = time.monotonic() + _SEARCH_INTERVAL_S
                self._store.settle_orphans(datetime.now(UTC))
        except Exception as error:  # noqa: BLE001  # the thread survives every fault and retries
            self._fail(error)
            return False
        return True

    def _recover(self) -> bool:
        """Connect again, write a row and the spilled records; return True if all of it works."""
        try:
            self._store.reopen()
            # check() passes on a full disk; only a write shows it.
            self._store.probe(datetime.now(UTC))
            if self._spilled:
                self._write_journal()
        except Exception as error:  # noqa: BLE001  # the thread survives every fault and retries
            self._fail(error)
            return False
        self._spilled = False
        self._backoff_s = self._retry_at = 0.0
        _log.warning("the ledger can be written again")
        self._report.written(())
        return True

    def _write_journal(self) -> None:
        rows = self._journal.read()
        while records := list(islice(rows, MAX_TRANSACTION_OPERATIONS)):
            self._store.write(Batch(records=records))

    def _write(self, items: list[QueueItem]) -> list[QueueItem]:
        """Write items in one transaction; return those that must be retried if the store is at fault."""
        try:
            self._store.write(make_batch(items))
        except (StoreError, OSError, MemoryError) as error:
            self._fail(error)
            return self._refuse_intents(items)
        except Exception as error:  # noqa: BLE001  # the fault of one item; the thread must survive it
            return self._write_one_by_one(items, error)
        self._report_written(items)
        return []

    def _refuse_intents(self, items: list[QueueItem]) -> list[QueueItem]:
        """Refuse the intents of a failed transaction; return the other items, with a withdrawal for each intent.

        A connection that breaks in COMMIT does not show whether the server committed.  The requests are not sent, or
        have a record soon, so their intents must not count as lost: they are withdrawn when the store works again.
        """
        withdrawals = {item: make_withdrawal(item.operation) for item in items}
        self._report.refused([item for item in items if withdrawals[item]], self._reason, failing=True)
        others = [item for item in items if not withdrawals[item]]
        return others + [QueueItem(withdrawal) for withdrawal in withdrawals.values() if withdrawal]

    def _write_one_by_one(self, items: list[QueueItem], error: Exception) -> list[QueueItem]:
        if len(items) > 1:
            return [unwritten for item in items for unwritten in self._write([item])]
        (item,) = items
        storable = make_storable(item.operation)
        if storable != item.operation:
            item.operation = storable
            return self._write(items)
        _log.error("the ledger rejected an operation", extra={"reason": repr(error)})
        self._report.refused(items, repr(error), failing=False)
        return []

    def _report_written(self, items: list[QueueItem]) -> None:
        reads = [item for item in items if isinstance(item.operation, ReadStore)]
        failed = [item for item in reads if not self._read(item)]
        self._report.written([item for item in items if item not in failed] if failed else items)

    def _read(self, item: QueueItem) -> bool:
        """Run a query; return False if it fails."""
        assert isinstance(item.operation, ReadStore)
        try:
            item.result = item.operation.query(self._store)
        except Exception as error:  # noqa: BLE001  # the fault of one query; the thread must survive it
            self._report.refused([item], str(error), failing=False)
            return False
        return True

    def _hold(self, items: list[QueueItem]) -> list[QueueItem]:
        """Refuse intents and queries, append records to the journal, and return the items to retry."""
        refused = [item for item in items if not item.operation.retried]
        if refused:
            self._report.refused(refused, self._reason, failing=True)
        held = [item for item in items if item.operation.retried]
        records = (find_record(item.operation) for item in held)
        self._journal.append([record for record in records if record is not None])
        self._journaled = True
        return self._spill(held)

    def _spill(self, held: list[QueueItem]) -> list[QueueItem]:
        """Drop the journaled records from memory if too many items are held; return the others."""
        if len(held) <= MAX_HELD_OPERATIONS:
            return held
        spilled = {item for item in held if self._is_journaled(find_record(item.operation))}
        self._spilled = self._spilled or bool(spilled)
        self._report.journaled(list(spilled))
        return [item for item in held if item not in spilled]

    def _is_journaled(self, record: RecordRow | None) -> bool:
        return record is not None and self._journal.holds(record)

    def _fail(self, error: Exception) -> None:
        self._reason = str(error) if isinstance(error, StoreError) else repr(error)
        self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S) or _MIN_BACKOFF_S
        self._retry_at = time.monotonic() + self._backoff_s
        self._report.refused((), self._reason, failing=True)


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
