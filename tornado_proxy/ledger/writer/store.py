"""What is written to a ledger and read back by the writer thread, whatever database is behind it.  Synchronous."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

from tornado_proxy.domain.record import PendingRequest
from tornado_proxy.ledger.database import Database, StoreError
from tornado_proxy.ledger.rows import (
    INTENT_COLUMNS,
    OBJECT_COLUMNS,
    RECORD_COLUMNS,
    SETTLED_COLUMNS,
    Row,
    format_time,
    object_rows,
    plain_row,
    read_deferred_facts,
)
from tornado_proxy.ledger.schema import (
    INSERT_INTENTS,
    INSERT_OBJECTS,
    INSERT_RECORDS,
    INSERT_SETTLEMENTS,
    SET_META,
    prepare,
)
from tornado_proxy.ledger.writer.intent_log import read_intents
from tornado_proxy.ledger.writer.journal import Journal
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

_log = logging.getLogger(__name__)

_intent_values = itemgetter(*INTENT_COLUMNS)
_record_values = itemgetter(*RECORD_COLUMNS)
_object_values = itemgetter(*OBJECT_COLUMNS)
_settlement_values = itemgetter("request_id", *SETTLED_COLUMNS, "settled_at")

_SELECT_OWNER = "SELECT project_id FROM objects WHERE provider = ? AND object_id = ?"
_SELECT_OWNED = (
    "SELECT r.object_id FROM records r JOIN objects o "
    "ON o.provider = r.provider AND o.object_id = r.object_id AND o.request_id = r.request_id "
    "WHERE r.project_id = ? AND r.provider = ? AND r.endpoint = ?"
)
_SELECT_PENDING = (
    "SELECT request_id, project_id, provider, endpoint, object_id, model_requested, started_at, kept_facts "
    "FROM records WHERE basis = 'pending' AND object_id IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.request_id = records.request_id) ORDER BY seq LIMIT ?"
)
_SELECT_WRITERS = "SELECT DISTINCT writer FROM intents WHERE lost_at IS NULL"
_COUNT_INTENTS = "SELECT count(*) FROM intents WHERE writer = ? AND lost_at IS NULL"
_LOSE_INTENTS = "UPDATE intents SET lost_at = ? WHERE writer = ? AND lost_at IS NULL"
_REGAIN_INTENTS = "UPDATE intents SET lost_at = NULL WHERE writer = ? AND lost_at IS NOT NULL"
_SELECT_RECORD = "SELECT 1 FROM records WHERE request_id = ?"

#: What a dead process left is written so many at once.
_ADOPTED = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction.  `withdrawn` has the ids of requests that were not sent."""

    intents: list[Row] = field(default_factory=list)
    records: list[Row] = field(default_factory=list)
    settlements: list[Row] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


class Liveness(Protocol):
    """Tells which of the writers of a store live."""

    def opening(self) -> AbstractContextManager[None]:
        """Keep other processes from opening the store, or looking for the dead, at the same time."""

    def register(self) -> None:
        """Say that this process lives, until it dies."""

    def dead(self, writer: str) -> bool:
        """Whether a writer is another process that is gone."""

    def resign(self) -> None:
        """Say that this process is about to end; whoever looks next finds it gone."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a store is opened, and opened again after a fault: `connect(True)` may make what is not there.

    `files` are this machine's lock files and journals; `liveness` tells who else writes; `name` is for messages.
    """

    name: str
    connect: Callable[[bool], Database]
    files: ProcessLocks
    liveness: Callable[[Database], Liveness]


class Store:
    """An open ledger.  Used by one thread.  Methods raise StoreError, or what the faulty values of a row cause."""

    def __init__(self, opening: Opening) -> None:
        """Open it, and make its tables where there are none.

        Raises:
            StoreError: it cannot be opened.
            OSError: the folder of lock files and journals cannot be written.
        """
        self._opening = opening
        self._files = opening.files
        self._db: Database | None = None
        with self._files.opening(), contextlib.ExitStack() as undo:
            self._files.register()
            undo.callback(self._files.leave)
            self._connect(create=True)
            undo.pop_all()

    def reopen(self) -> None:
        """Connect again after a fault.  What was called lost, though this process lived, is under way again."""
        self._disconnect()
        self._connect(create=False)
        self._run(_REGAIN_INTENTS, (self._files.own,))

    def _connect(self, *, create: bool) -> None:
        db = self._opening.connect(create)
        try:
            self._liveness = self._opening.liveness(db)
            with self._liveness.opening():
                prepare(db)
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
            raise StoreError("not connected")
        return self._db

    @property
    def journal_path(self) -> Path:
        """Where this process keeps records that could not be written."""
        return self._files.journal(self._files.own)

    def write(self, batch: Batch) -> None:
        """Write all of it in one transaction; a record takes its intent's place."""
        self._write(batch, self._files.own)

    def _write(self, batch: Batch, writer: str) -> None:
        db = self._open_db
        done = [row["request_id"] for row in batch.records] + batch.withdrawn
        inserts = (
            (INSERT_INTENTS, [(*_intent_values(row), writer) for row in batch.intents]),
            (INSERT_RECORDS, [_record_values(row) for row in batch.records]),
            (INSERT_OBJECTS, [_object_values(one) for row in batch.records for one in object_rows(row)]),
            (INSERT_SETTLEMENTS, [_settlement_values(row) for row in batch.settlements]),
        )
        with db.transaction():
            for insert, rows in inserts:
                for sql, values in db.dialect.inserts(insert, rows):
                    db.run(sql, values)
            for sql, values in db.dialect.deletes("intents", "request_id", done):
                db.run(sql, values)

    def check(self) -> None:
        """Find out whether the store works while there is nothing to write."""
        self._open_db.check()

    def probe(self, now: datetime) -> None:
        """Write something, so that a full disk shows."""
        self._run(SET_META, ("probed_at", now.isoformat()))

    def owner(self, provider: str, object_id: str) -> str | None:
        """The project that created one of the provider's objects; None for one that is not known."""
        found = self._open_db.rows(_SELECT_OWNER, (provider, object_id))
        return str(found[0][0]) if found else None

    def owned(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""
        found = self._open_db.rows(_SELECT_OWNED, (project_id, provider, endpoint))
        return frozenset(str(object_id) for (object_id,) in found)

    def pending(self, most: int) -> list[PendingRequest]:
        """Calls whose usage is still to come, oldest first."""
        rows: list[tuple[Any, ...]] = self._open_db.rows(_SELECT_PENDING, (most,))
        return [
            PendingRequest(
                request_id,
                project,
                provider,
                endpoint,
                object_id,
                model,
                datetime.fromisoformat(started),
                read_deferred_facts(kept),
            )
            for request_id, project, provider, endpoint, object_id, model, started, kept in rows
        ]

    def settle_orphans(self, now: datetime) -> None:
        """Call the intents of dead processes lost, so that they are `unsettled`.

        What dead processes of this machine left in files is written first.
        """
        with self._files.opening(), self._liveness.opening():
            left = self._files.list_dead()
            for writer in left:
                self._adopt(writer)
            writers = [str(one) for (one,) in self._open_db.rows(_SELECT_WRITERS)]
            lost = sum(self._lose(writer, now) for writer in writers if self._liveness.dead(writer))
            for writer in left:
                self._files.forget(writer)
        if lost:
            _log.warning("requests of a dead process are unsettled", extra={"unsettled": lost})

    def close(self, *, keep_files: bool = False) -> None:
        """Close the connection and give the lock back; its files stay where something waits in them to be adopted."""
        try:
            with contextlib.suppress(StoreError):
                self._liveness.resign()
            self._disconnect()
        finally:
            self._files.leave(keep_file=keep_files)

    def _adopt(self, writer: str) -> None:
        """Write what a dead process left: records that it could not write, and intents that have no record."""
        records = map(plain_row, Journal(self._files.journal(writer)).read())
        while some := list(islice(records, _ADOPTED)):
            self._write(Batch(records=some), writer)
        for file in self._files.intent_files(writer):
            intents = map(plain_row, read_intents(file))
            while some := list(islice(intents, _ADOPTED)):
                self._write(Batch(intents=[one for one in some if self._open(one)]), writer)

    def _open(self, intent: Row) -> bool:
        return not self._open_db.rows(_SELECT_RECORD, (intent["request_id"],))

    def _lose(self, writer: str, now: datetime) -> int:
        ((count,),) = self._open_db.rows(_COUNT_INTENTS, (writer,))
        self._run(_LOSE_INTENTS, (format_time(now), writer))
        return int(str(count))

    def _run(self, sql: str, values: Sequence[object]) -> None:
        self._open_db.run(sql, values)
