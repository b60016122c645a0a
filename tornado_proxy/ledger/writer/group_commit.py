"""A ledger on one event loop with one writer thread, which commits all queued operations in one transaction.

    begin ──> intent log, one write         (an SQLite file without fsync)
    begin ──┐                               (any other database)
    read  ──┼──> end of the loop's turn ──┐
    finish ─┴──> up to 40 ms later ───────┴──> writer thread ─┬─ commit ──> futures done, in one callback on the loop
                                                              └─ fault: intents fail (503), records are held and
                                                                        retried

write_ahead and finish append the record to the intent log too, so that it survives the death of the process from that
moment on, and not only from the commit.  While the database fails, the records that wait are appended to a journal as
well, which is flushed to the disk.  The next open() reads both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, PendingRequest, RequestIntent, RequestRecord, Settlement
from tornado_proxy.ledger.columns import RecordRow
from tornado_proxy.ledger.database import Backend, StoreError
from tornado_proxy.ledger.reports.ranking import RankedQuery, RankedUsage
from tornado_proxy.ledger.reports.records_page import RecordsQuery
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.reports.request_lookup import RequestLookup
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.rows import make_intent_row, make_record_row, make_settlement_row
from tornado_proxy.ledger.writer.intent_log import OpenIntents
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.operations import (
    MoveIntents,
    Operation,
    ReadStore,
    WithdrawIntent,
    WriteIntent,
    WriteRecord,
    WriteSettlement,
)
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer.store import Store
from tornado_proxy.ledger.writer.write_queue import WriteQueue
from tornado_proxy.ledger.writer.writer_thread import Queue, Writer

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: Seconds after which a thread that waits for the interpreter's lock asks for it.  Python's default of 5 ms starts anew
#: each time the event loop polls for events, so that beside a busy loop the writer waited for seconds.
_SWITCH_INTERVAL_S = 0.00005


@dataclass(frozen=True, slots=True)
class LedgerTimeouts:
    """Seconds.  `hangs_s` and `close_s` exceed all timeouts of the databases: after them a disk or a server hangs.

    watch_s: between two checks of the writer and of the intent log.
    hangs_s: without a result from the writer, until new requests are refused.
    close_s: for the writer to end; then the process ends without it.
    """

    watch_s: float = 1.0
    hangs_s: float = 15.0
    close_s: float = 20.0


DEFAULT_TIMEOUTS = LedgerTimeouts()


class GroupCommitLedger:
    """Satisfies ledger.protocol.Ledger for every backend."""

    def __init__(self, backend: Backend, *, timeouts: LedgerTimeouts = DEFAULT_TIMEOUTS) -> None:
        self._backend = backend
        self._timeouts = timeouts
        #: The lock files of this machine's processes, with the id of this one.
        self.locks = ProcessLocks(backend.files_path)
        self._usage_reader = UsageReaderThread(backend)
        self._open_intents = OpenIntents(self.locks)
        self._intent_log_fault = ""
        self._queue: Queue = queue.SimpleQueue()
        self._write_queue: WriteQueue | None = None
        self._writer: Writer | None = None
        self._thread: threading.Thread | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        #: "" while the ledger is open, else "not open" or "closed".
        self._closed_reason = "not open"

    @property
    def healthy(self) -> bool:
        """True if the last write succeeded."""
        return not self.reason

    @property
    def reason(self) -> str:
        """The fault of the last write, or ""."""
        if self._closed_reason or self._write_queue is None:
            return self._closed_reason
        return self._write_queue.reason or self._intent_log_fault

    @property
    def pending(self) -> int:
        """The number of operations that are not committed yet."""
        return self._write_queue.pending if self._write_queue is not None else 0

    async def open(self) -> None:
        """Open the database, write the files of dead processes to it, and mark their open intents as lost."""
        loop = asyncio.get_running_loop()
        try:
            store = await asyncio.to_thread(self._open_store)
        except StoreError as error:
            raise LedgerUnavailable(str(error)) from error
        except OSError as error:
            raise LedgerUnavailable(_describe(self._backend.name, error)) from error
        self._write_queue = WriteQueue(loop, self._queue, hangs_s=self._timeouts.hangs_s)
        self._writer = Writer(store, self._queue, self._write_queue)
        # A daemon thread: a writer that hangs in a system call must not keep the process from ending.
        self._thread = threading.Thread(target=self._writer.run, name="ledger", daemon=True)
        sys.setswitchinterval(min(_SWITCH_INTERVAL_S, sys.getswitchinterval()))
        self._thread.start()
        self._closed_reason = ""
        self._watch_timer = loop.call_later(self._timeouts.watch_s, self._watch)

    async def begin(self, intent: RequestIntent) -> None:
        """Store an intent; it is durable when this returns."""
        reason = self.reason
        if reason:
            refusal = "no new requests while the ledger cannot be written"
            raise LedgerUnavailable(f"{refusal}: {reason}", client_message=refusal)
        if self._backend.logs_intents:
            self._log_intent(intent)
            return
        try:
            await self._put(WriteIntent(make_intent_row(intent)))
        except asyncio.CancelledError:
            # The request is not sent, or has a record soon, so its intent must not count as lost when the process ends.
            self._put(WithdrawIntent(intent.request_id))
            raise

    def write_ahead(self, record: RequestRecord) -> None:
        """Append a record to the intent log; finish() stores it."""
        if not self._closed_reason:
            self._open_intents.log_record(record)

    def finish(self, record: RequestRecord) -> asyncio.Future[None]:
        """Store a record; after close() write it to the journal, which the next open() reads."""
        if self._closed_reason:
            return self._finish_after_close(make_record_row(record))
        done = self._put(WriteRecord(self._open_intents.log_record(record)))
        # A later MoveIntents must not write the intent again, after its record.
        self._open_intents.end(record.intent.request_id)
        return done

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store the settlement of a pending record."""
        return self._put(WriteSettlement(make_settlement_row(settlement)))

    async def pending_requests(self, limit: int, after: int = 0) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage the provider reports later, oldest first."""
        return await self._read(lambda store: store.list_pending(limit, after))

    async def pending_request(self, provider: str, object_id: str) -> PendingRequest | None:
        """Return the request that created an object if its usage is not known yet, else None."""
        return await self._read(lambda store: store.find_pending(provider, object_id))

    async def owner_of(self, provider: str, object_id: str) -> ObjectOwner | None:
        """Return the owner of an object of the provider; None for an unknown object."""
        return await self._read(lambda store: store.find_owner(provider, object_id))

    async def keys_of(self, project_id: str, provider: str, endpoint: str) -> Mapping[str, KeyId]:
        """Return the provider keys, as far as they are known, of the objects of owned_by(), by their ids."""
        return await self._read(lambda store: store.list_keys(project_id, provider, endpoint))

    async def owned_by(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """Return the ids of the objects that a project created by requests to `endpoint`."""
        return await self._read(lambda store: store.list_owned(project_id, provider, endpoint))

    async def usage(self, query: UsageQuery) -> UsageResult:
        """Return the usage that a query selects, from a connection of its own."""
        return await self._usage_reader.read_usage(query)

    async def ranked_usage(self, query: RankedQuery) -> RankedUsage:
        """Return the dearest groups of the usage that a query selects, from a connection of its own."""
        return await self._usage_reader.read_ranked(query)

    async def find_requests(self, lookup: RequestLookup) -> Sequence[Record]:
        """Return the records of one request of a caller, from a connection of its own."""
        return await self._usage_reader.find_requests(lookup)

    async def list_records(self, query: RecordsQuery) -> Sequence[Record]:
        """Return one page of records, from a connection of its own."""
        return await self._usage_reader.list_records(query)

    async def close(self) -> None:
        """Write the queued operations and end the threads."""
        self._usage_reader.close()
        if self._thread is None or self._write_queue is None or self._writer is None:
            return
        thread, self._thread = self._thread, None
        self._closed_reason = "closed"
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self._writer.leaves_files = self._open_intents.close()
        self._write_queue.close()
        await asyncio.to_thread(thread.join, self._timeouts.close_s)
        if thread.is_alive():
            _log.critical(
                "the ledger's writer does not end; closing without it", extra={"pending": self._write_queue.pending}
            )

    def _log_intent(self, intent: RequestIntent) -> None:
        try:
            self._open_intents.begin(intent)
        except OSError as error:
            self._set_intent_log_fault(error)
            refusal = "the ledger cannot be written"
            raise LedgerUnavailable(f"{refusal}: {self._intent_log_fault}", client_message=refusal) from error
        if self._open_intents.is_full:
            self._rotate()

    def _rotate(self) -> None:
        # A failed rotation must not refuse a request: its intent is durable.  The file grows until one succeeds.
        with contextlib.suppress(OSError):
            rotated = self._open_intents.rotate()
            moved = self._put(MoveIntents(rotated.open_intents))
            moved.add_done_callback(lambda done: _remove_if_moved(rotated.file, done))

    def _finish_after_close(self, row: RecordRow) -> asyncio.Future[None]:
        Journal(self.locks.journal_path(self.locks.writer_id)).append([row])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _watch(self) -> None:
        """Check the writer and the intent log, and do so again after `watch_s`."""
        assert self._write_queue is not None
        self._watch_timer = asyncio.get_running_loop().call_later(self._timeouts.watch_s, self._watch)
        self._write_queue.check_writer()
        # Refused requests write no intents, so the log is written here to find out that it works again.
        if not self._intent_log_fault:
            return
        try:
            self._open_intents.check()
        except OSError as error:
            self._set_intent_log_fault(error)
        else:
            self._intent_log_fault = ""
            _log.warning("the ledger can be written again")

    def _set_intent_log_fault(self, error: OSError) -> None:
        reason = _describe(self._backend.name, error)
        if reason != self._intent_log_fault:
            _log.error("the ledger cannot be written", extra={"reason": reason})
            self._intent_log_fault = reason

    async def _read(self, query: Callable[[Store], _Result]) -> _Result:
        result: _Result = await self._put(ReadStore(query))
        return result

    def _put(self, operation: Operation) -> asyncio.Future[Any]:
        if self._closed_reason or self._write_queue is None:
            raise LedgerUnavailable("the ledger is closed")
        return self._write_queue.put(operation)

    def _open_store(self) -> Store:
        store = Store(self._backend, self.locks)
        try:
            store.settle_orphans(datetime.now(UTC))
            self._open_intents.open()
        except BaseException:
            store.close()
            raise
        return store


def _remove_if_moved(file: Path, moved: asyncio.Future[object]) -> None:
    """Remove a log file whose open intents are in the database; leave it to the next start if they are not."""
    if not moved.cancelled() and moved.exception() is None:
        file.unlink(missing_ok=True)


def _describe(name: str, error: OSError) -> str:
    """Return a fault of the files beside the ledger and its remedy, in one line for an operator."""
    file = f"{error.filename}: " if error.filename else ""
    return f"{name}: its folder cannot be written ({file}{error.strerror}); check owner, mode and free space"
