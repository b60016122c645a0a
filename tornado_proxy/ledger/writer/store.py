"""The tables of an open ledger, as the writer thread uses them.  Synchronous, and the same for every database."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import ObjectOwner, PendingRequest
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import RECORD_COLUMNS, SETTLED_COLUMNS, IntentRow, RecordRow, SettlementRow
from tornado_proxy.ledger.database import Backend, Database, StoreError
from tornado_proxy.ledger.deferred_facts import read_deferred_facts
from tornado_proxy.ledger.dialect import Values
from tornado_proxy.ledger.pruned_requests import is_pruned
from tornado_proxy.ledger.rows import (
    format_time,
    list_objects,
    make_storable_row,
    read_object_owner,
)
from tornado_proxy.ledger.schema import (
    INSERT_GIVEN_UP,
    INSERT_INTENTS,
    INSERT_OBJECTS,
    INSERT_RECORDS,
    INSERT_SETTLEMENTS,
    INSERT_UNHELD_BOUNDS,
    SET_META,
    prepare,
)
from tornado_proxy.ledger.sums.rollups import roll_up
from tornado_proxy.ledger.writer.container_charges import charge_containers
from tornado_proxy.ledger.writer.intent_log import read_intents, read_records
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

_log = logging.getLogger(__name__)

# In C: a generator over 42 columns is several times slower.
_record_values = itemgetter(*map(RecordRow.__struct_fields__.index, RECORD_COLUMNS))
_settlement_values = attrgetter("request_id", *SETTLED_COLUMNS, "settled_at")

#: The bases of records whose requests can still cost their bounds.
_UNKNOWN_COSTS = frozenset({Basis.UNSETTLED.value, Basis.PENDING.value})

_SELECT_OWNER = (
    "SELECT project_id, provider_key, key_fingerprint, key_owner FROM objects WHERE provider = ? AND object_id = ?"
)
_SELECT_OWNED = (
    "SELECT r.object_id FROM records r JOIN objects o "
    "ON o.provider = r.provider AND o.object_id = r.object_id AND o.request_id = r.request_id "
    "WHERE r.project_id = ? AND r.provider = ? AND r.endpoint = ?"
)
_SELECT_KEYS = _SELECT_OWNED.replace(
    "SELECT r.object_id", "SELECT r.object_id, o.project_id, o.provider_key, o.key_fingerprint, o.key_owner"
)
_PENDING = (
    "SELECT request_id, project_id, provider, endpoint, object_id, model_requested, started_at, kept_facts, seq, "
    'participant, "user", agent_session '
    "FROM records WHERE basis = 'pending' AND object_id IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.request_id = records.request_id) "
)
#: `+`: both databases read the few pending records by their index, and not every record in the order of seq.
_SELECT_PENDING = f"{_PENDING} AND +seq > ? ORDER BY +seq LIMIT ?"
_SELECT_PENDING_OBJECT = f"{_PENDING} AND provider = ? AND object_id = ? ORDER BY +seq LIMIT 1"
_SELECT_WRITERS = "SELECT DISTINCT writer FROM intents WHERE lost_at IS NULL"
_COUNT_INTENTS = "SELECT count(*) FROM intents WHERE writer = ? AND lost_at IS NULL"
_LOSE_INTENTS = "UPDATE intents SET lost_at = ? WHERE writer = ? AND lost_at IS NULL"
_REGAIN_INTENTS = "UPDATE intents SET lost_at = NULL WHERE writer = ? AND lost_at IS NOT NULL"
_FORGET_CONTAINERS = "DELETE FROM containers WHERE seen_at IS NULL OR seen_at < ?"
_SELECT_RECORD = "SELECT 1 FROM records WHERE request_id = ?"

#: Rows of a dead process's files that are written in one transaction.
_ROWS_PER_TRANSACTION = 1000


#: How long containers are kept after their last use.  OpenAI's expire after 20 minutes without use, Anthropic's after
#: 30 days; a response that is settled late can have used one.
CONTAINERS_KEPT = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction.  `withdrawn` has the ids of requests that were not sent."""

    intents: list[IntentRow] = field(default_factory=list)
    records: list[RecordRow] = field(default_factory=list)
    settlements: list[SettlementRow] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


class Store:
    """An open ledger, used by one thread.

    Methods raise StoreError if the database fails.  Any other exception is the fault of the values of a row.
    """

    def __init__(self, backend: Backend, locks: ProcessLocks) -> None:
        """Connect, and make the tables if there are none.

        Args:
            backend: the database.
            locks: the lock files of this machine's processes.

        Raises:
            StoreError: the database cannot be opened.
            OSError: the folder of lock files and journals cannot be written.
        """
        self._backend = backend
        self._locks = locks
        self._db: Database | None = None
        with self._locks.hold_opening_lock(), contextlib.ExitStack() as undo:
            self._locks.register()
            undo.callback(self._locks.close)
            self._connect(create=True)
            undo.pop_all()

    def reopen(self) -> None:
        """Connect again after a fault.

        Another process may have found this one dead while it had no connection.  The intents that it marked as lost
        are open again.
        """
        self._disconnect()
        self._connect(create=False)
        self._run(_REGAIN_INTENTS, (self._locks.writer_id,))

    def _connect(self, *, create: bool) -> None:
        db = self._backend.connect(create=create)
        try:
            self._liveness = self._backend.make_liveness(db, self._locks)
            # Two processes that start together must not both find a database without tables.
            with self._liveness.hold_opening_lock():
                prepare(db, self._backend)
            self._liveness.register()
        except BaseException:
            db.close()
            raise
        self._db = db

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(StoreError):
                db.close()

    @property
    def _open_db(self) -> Database:
        if self._db is None:
            raise StoreError(f"{self._backend.name}: not connected")
        return self._db

    @property
    def journal_path(self) -> Path:
        """The path of this process's journal."""
        return self._locks.journal_path(self._locks.writer_id)

    def write(self, batch: Batch) -> None:
        """Write a batch in one transaction; each record replaces its intent."""
        self._write(batch, self._locks.writer_id)

    def _write(self, batch: Batch, writer: str) -> None:
        db, dialect = self._open_db, self._backend.dialect
        closed = [row.request_id for row in batch.records] + batch.withdrawn
        with db.transaction():
            if dialect.announce_writer:
                db.run(dialect.announce_writer)
            records = charge_containers(db, dialect, batch.records, "records")
            final = [row for row in batch.settlements if row.final]
            settlements = charge_containers(db, dialect, final, "settlements")
            db.insert(INSERT_INTENTS, [(*astuple(row), writer) for row in batch.intents])
            db.insert(INSERT_RECORDS, [_record_values(astuple(row)) for row in records])
            objects, unheld = _list_additions(records, writer)
            inserts = (
                (INSERT_OBJECTS, objects),
                (INSERT_UNHELD_BOUNDS, unheld),
                (INSERT_SETTLEMENTS, [_settlement_values(row) for row in settlements]),
                (INSERT_GIVEN_UP, [_settlement_values(row) for row in batch.settlements if not row.final]),
            )
            for insert, others in inserts:
                if others:
                    db.insert(insert, others)
            # After the inserts: a batch may hold an intent and its record.
            db.delete("intents", "request_id", closed)

    def check(self) -> None:
        """Raise StoreError if the database fails.  Called while there is nothing to write."""
        self._open_db.check()

    def roll_up(self) -> bool:
        """Add some records to the sums by hour and day; return True if there may be more."""
        return roll_up(self._open_db, self._backend.dialect, waits=False)

    def probe(self, now: datetime) -> None:
        """Write a row, to find out whether the disk is full."""
        self._run(SET_META, ("probed_at", now.isoformat()))

    def find_owner(self, provider: str, object_id: str) -> ObjectOwner | None:
        """Return the owner of an object of the provider; None for an unknown object."""
        rows: list[tuple[Any, ...]] = self._open_db.fetch_rows(_SELECT_OWNER, (provider, object_id))
        return read_object_owner(*rows[0]) if rows else None

    def list_owned(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """Return the ids of the objects that a project created by requests to `endpoint`."""
        rows = self._open_db.fetch_rows(_SELECT_OWNED, (project_id, provider, endpoint))
        return frozenset(str(object_id) for (object_id,) in rows)

    def list_keys(self, project_id: str, provider: str, endpoint: str) -> dict[str, KeyId]:
        """Return the provider keys, as far as they are known, of the objects of list_owned(), by their ids."""
        rows: list[tuple[Any, ...]] = self._open_db.fetch_rows(_SELECT_KEYS, (project_id, provider, endpoint))
        owners = {str(object_id): read_object_owner(*columns) for object_id, *columns in rows}
        return {object_id: owner.key for object_id, owner in owners.items() if owner.key is not None}

    def list_pending(self, limit: int, after: int) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage the provider reports later, oldest first, with seq > `after`."""
        return self._read_pending(_SELECT_PENDING, (after, limit))

    def find_pending(self, provider: str, object_id: str) -> PendingRequest | None:
        """Return the request that created an object if its usage is not known yet."""
        return next(iter(self._read_pending(_SELECT_PENDING_OBJECT, (provider, object_id))), None)

    def _read_pending(self, sql: str, values: Sequence[object]) -> list[PendingRequest]:
        rows: list[tuple[Any, ...]] = self._open_db.fetch_rows(sql, values)
        return [
            PendingRequest(
                request_id,
                project_id,
                provider,
                endpoint,
                object_id,
                model,
                datetime.fromisoformat(started_at),
                read_deferred_facts(facts),
                *others,
            )
            for request_id, project_id, provider, endpoint, object_id, model, started_at, facts, *others in rows
        ]

    def has_dead_neighbors(self) -> bool:
        """Return True if a dead process of this machine has left files, which settle_orphans() writes to the ledger."""
        return self._locks.has_dead()

    def settle_orphans(self, now: datetime) -> None:
        """Mark the intents of dead processes as lost, so that reports show them as `unsettled`; forget old containers.

        Records and intents in the files of dead processes of this machine are written first: a record there settles
        its intent.
        """
        with self._locks.hold_opening_lock(), self._liveness.hold_opening_lock():
            dead = self._locks.list_dead()
            for writer in dead:
                self._adopt_files(writer)
            writers = [str(writer) for (writer,) in self._open_db.fetch_rows(_SELECT_WRITERS)]
            lost = sum(self._lose_intents(writer, now) for writer in writers if self._liveness.is_dead(writer))
            # Last: a fault before this leaves the files to the next search, and rows written twice are ignored.
            for writer in dead:
                self._locks.delete_files(writer)
        self._run(_FORGET_CONTAINERS, (format_time(now - CONTAINERS_KEPT),))
        if lost:
            _log.warning("requests of a dead process are unsettled", extra={"unsettled": lost})

    def close(self, *, keep_files: bool = False) -> None:
        """Close the connection and free the locks; `keep_files` leaves the files to the next process."""
        try:
            # `_liveness` belongs to a connection that may have failed.
            with contextlib.suppress(StoreError):
                self._liveness.release()
            self._disconnect()
        finally:
            self._locks.close(keep_files=keep_files)

    def _adopt_files(self, writer: str) -> None:
        """Write the records of a dead process's journal and logs, and the intents of its logs that have no record."""
        logs = self._locks.find_intent_logs(writer)
        # The database ignores a second record of a request, so the last ones come first: a journal has final records,
        # and a later log repeats those of an earlier one.
        sources = [Journal(self._locks.journal_path(writer)).read(), *(read_records(path) for path in reversed(logs))]
        for source in sources:
            records = map(make_storable_row, source)
            while some := list(islice(records, _ROWS_PER_TRANSACTION)):
                self._write(Batch(records=some), writer)
        for path in logs:
            intents = map(make_storable_row, read_intents(path))
            while rows := list(islice(intents, _ROWS_PER_TRANSACTION)):
                last = {row.request_id: row for row in rows}  # a statement takes one row of a request
                self._write(Batch(intents=[row for row in last.values() if not self._has_record(row)]), writer)

    def _has_record(self, intent: IntentRow) -> bool:
        """Return True if the record of an intent is in the ledger, or was until it was pruned."""
        found = self._open_db.fetch_rows(_SELECT_RECORD, (intent.request_id,))
        return bool(found) or is_pruned(self._open_db, intent.request_id, intent.started_at)

    def _lose_intents(self, writer: str, now: datetime) -> int:
        """Mark the open intents of a writer as lost and return their number."""
        ((count,),) = self._open_db.fetch_rows(_COUNT_INTENTS, (writer,))
        self._run(_LOSE_INTENTS, (format_time(now), writer))
        return int(str(count))

    def _run(self, sql: str, values: Sequence[object]) -> None:
        self._open_db.run(sql, values)


def _list_additions(records: Iterable[RecordRow], writer: str) -> tuple[list[Values], list[Values]]:
    """Return the rows of the objects of records, and those of the bounds of records without a known cost."""
    objects: list[Values] = []
    unheld: list[Values] = []
    for row in records:
        if row.objects:
            objects += list_objects(row)
        if row.bound_total is not None and row.basis in _UNKNOWN_COSTS:
            unheld.append((row.request_id, writer, row.bound_total, row.bound_subtotal))
    return objects, unheld
