"""The SQLite file: transactions, and intents of dead processes.  Synchronous; used by one thread."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path

from tornado_proxy.domain.call import PendingCall
from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import (
    INTENT_COLUMNS,
    OBJECT_COLUMNS,
    RECORD_COLUMNS,
    SETTLED_COLUMNS,
    Row,
    crashed_row,
    object_rows,
)
from tornado_proxy.ledger.schema import (
    DELETE_INTENTS,
    INSERT_INTENTS,
    INSERT_OBJECTS,
    INSERT_RECORDS,
    INSERT_SETTLEMENTS,
    prepare,
    quoted,
)
from tornado_proxy.ledger.writers import Writers

#: Milliseconds that SQLite waits for another process's transaction.
_BUSY_MS = 5000

#: KiB of pages in memory.  Request ids are random, so that each record touches pages all over the indexes.
_CACHE_KIB = 16 * 1024

#: Statements that stay prepared: four sizes of each of the five that write, and the queries.
_PREPARED = 64

_intent_values = itemgetter(*INTENT_COLUMNS)
_record_values = itemgetter(*RECORD_COLUMNS)
_object_values = itemgetter(*OBJECT_COLUMNS)
_settlement_values = itemgetter("request_id", *SETTLED_COLUMNS, "settled_at")

_SELECT_OWNER = "SELECT project_id FROM objects WHERE provider = ? AND object_id = ?"
_SELECT_OWNED = (
    "SELECT o.object_id FROM objects o JOIN records r USING (request_id) "
    "WHERE o.project_id = ? AND o.provider = ? AND r.endpoint = ? AND o.object_id = r.object_id"
)
_SELECT_PENDING = (
    "SELECT request_id, project_id, provider, endpoint, object_id, model_requested, started_at FROM records "
    "WHERE basis = 'pending' AND object_id IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.request_id = records.request_id) ORDER BY seq LIMIT ?"
)
_SELECT_INTENTS = f"SELECT {quoted(INTENT_COLUMNS)} FROM intents WHERE writer = ?"  # noqa: S608  # names of ours


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one transaction.  `withdrawn` are ids of requests that were not sent after all."""

    intents: Sequence[Row] = ()
    records: Sequence[Row] = ()
    settlements: Sequence[Row] = ()
    withdrawn: Sequence[str] = ()


class Store:
    """An open ledger file.  Every method may raise sqlite3.Error, and OSError for the files beside it."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writers = Writers(path)
        with self._writers.opening(), contextlib.ExitStack() as undo:
            self._writers.register()
            undo.callback(self._writers.leave)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=_PREPARED)
            undo.callback(self._db.close)
            self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            self._db.execute("PRAGMA journal_mode = WAL")
            # NORMAL survives the death of the process; FULL flushes each commit, and survives loss of power.
            self._db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            prepare(self._db)
            undo.pop_all()

    @property
    def journal_path(self) -> Path:
        """Where this process keeps records that could not be written."""
        return self._writers.journal(self._writers.own)

    def write(self, batch: Batch) -> None:
        """Write all of it in one transaction; a record takes its intent's place."""
        own = self._writers.own
        done = [(row["request_id"],) for row in batch.records] + [(one,) for one in batch.withdrawn]
        with self._transaction():
            INSERT_INTENTS.run(self._db, [(*_intent_values(row), own) for row in batch.intents])
            INSERT_RECORDS.run(self._db, [_record_values(row) for row in batch.records])
            DELETE_INTENTS.run(self._db, done)
            INSERT_OBJECTS.run(self._db, [_object_values(one) for row in batch.records for one in object_rows(row)])
            INSERT_SETTLEMENTS.run(self._db, [_settlement_values(row) for row in batch.settlements])

    def probe(self, now: datetime) -> None:
        """Write something, so that a full disk shows."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('probed_at', ?)", (now.isoformat(),))

    def owner(self, provider: str, object_id: str) -> str | None:
        """The project that created one of the provider's objects; None for one that is not known."""
        row = self._db.execute(_SELECT_OWNER, (provider, object_id)).fetchone()
        return None if row is None else str(row[0])

    def owned(self, project_id: str, provider: str, endpoint: str) -> frozenset[str]:
        """The objects that a project created by calls to `endpoint`."""
        return frozenset(row[0] for row in self._db.execute(_SELECT_OWNED, (project_id, provider, endpoint)))

    def pending(self, most: int) -> list[PendingCall]:
        """Calls whose usage is still to come, oldest first."""
        rows = self._db.execute(_SELECT_PENDING, (most,))
        return [
            PendingCall(request_id, project, provider, endpoint, object_id, model, datetime.fromisoformat(started))
            for request_id, project, provider, endpoint, object_id, model, started in rows
        ]

    def settle_orphans(self, now: datetime) -> int:
        """Turn the intents of dead processes into records with basis `unsettled`; gives their number.

        What a dead process kept in its journal is written first, so that it is not taken for unsettled.
        """
        with self._writers.opening():
            left = self._writers.dead_ones()
            for writer in left:
                self._adopt_journal(writer)
            writers = [row[0] for row in self._db.execute("SELECT DISTINCT writer FROM intents")]
            settled = sum(self._settle(writer, now) for writer in writers if self._writers.dead(writer))
            for writer in left:
                self._writers.forget(writer)
        return settled

    def close(self, *, keep_lock_file: bool = False) -> None:
        """Close the file and give the lock back; its file stays where a journal waits to be adopted."""
        try:
            self._db.close()
        finally:
            self._writers.leave(keep_file=keep_lock_file)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _adopt_journal(self, writer: str) -> None:
        path = self._writers.journal(writer)
        self.write(Batch(records=Journal(path).read()))
        path.unlink(missing_ok=True)

    def _settle(self, writer: str, now: datetime) -> int:
        rows = self._db.execute(_SELECT_INTENTS, (writer,)).fetchall()
        intents = [dict(zip(INTENT_COLUMNS, row, strict=True)) for row in rows]
        self.write(Batch(records=[crashed_row(intent, now) for intent in intents]))
        return len(rows)
