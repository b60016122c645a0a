"""The SQLite file: tables, transactions, and intents of dead processes.  Synchronous; used by one thread.

    intents       requests under way; a row goes in the transaction that writes its record
    records       append-only: triggers refuse UPDATE and DELETE
    settlements   append-only: what pending records came to, once each
    bills         view: records, with their settlements in place of what was pending
    objects       which project created which of the provider's objects
    meta          schema version

Each process that writes holds a lock on a file of its own beside the database.  Intents carry the process's id; those
whose lock is free belong to a process that died, and become records at the next start.  So several processes share one
file, and none takes another's requests for lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO

from tornado_proxy.domain.call import PendingCall
from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import RECORD_COLUMNS, SETTLED_COLUMNS, Row, crashed_row

SCHEMA_VERSION = 1

#: Milliseconds that SQLite waits for another process's transaction.
_BUSY_MS = 5000

_INTENT_COLUMNS = (
    "request_id",
    "project_id",
    "room",
    "participant",
    "user",
    "session",
    "provider",
    "endpoint",
    "method",
    "model_requested",
    "started_at",
    "credential_id",
)


def _settled(name: str) -> str:
    """A column of the view `bills`."""
    both = f'CASE WHEN s.request_id IS NULL THEN r."{name}" ELSE s."{name}" END AS "{name}"'
    return both if name in SETTLED_COLUMNS else f'r."{name}"'


_BILLS = (
    f"SELECT r.seq, {', '.join(_settled(name) for name in RECORD_COLUMNS)} "  # noqa: S608  # names of ours
    "FROM records r LEFT JOIN settlements s ON s.request_id = r.request_id"
)

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS intents (
    request_id TEXT PRIMARY KEY,
    writer TEXT NOT NULL,
    {", ".join(f'"{name}" TEXT' for name in _INTENT_COLUMNS[1:])}
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY,
    {", ".join(f'"{name}" {"INTEGER" if name == "status" else "TEXT"}' for name in RECORD_COLUMNS)}
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS records_request ON records (request_id);
CREATE INDEX IF NOT EXISTS records_project ON records (project_id, started_at);
CREATE INDEX IF NOT EXISTS records_time ON records (started_at);
CREATE INDEX IF NOT EXISTS records_pending ON records (request_id) WHERE basis = 'pending';
CREATE TABLE IF NOT EXISTS settlements (
    request_id TEXT PRIMARY KEY,
    {", ".join(f'"{name}" TEXT' for name in SETTLED_COLUMNS)},
    settled_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS bills AS {_BILLS};
CREATE TABLE IF NOT EXISTS objects (
    provider TEXT NOT NULL,
    object_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    PRIMARY KEY (provider, object_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_request ON objects (request_id);
CREATE TRIGGER IF NOT EXISTS settlements_keep BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS settlements_stay BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS records_keep BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER IF NOT EXISTS records_stay BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
"""


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_INSERT_INTENT = (
    f"INSERT INTO intents (writer, {_quoted(_INTENT_COLUMNS)}) "  # noqa: S608  # names of ours
    f"VALUES (:writer, {', '.join(':' + name for name in _INTENT_COLUMNS)})"
)
_INSERT_RECORD = (
    f"INSERT INTO records ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in RECORD_COLUMNS)}) "  # noqa: S608  # names of ours
    f"VALUES ({', '.join(':' + name for name in RECORD_COLUMNS)}) ON CONFLICT (request_id) DO NOTHING"
)


_INSERT_SETTLEMENT = (
    f"INSERT INTO settlements (request_id, {_quoted(SETTLED_COLUMNS)}, settled_at) "  # noqa: S608  # names of ours
    f"VALUES (:request_id, {', '.join(':' + name for name in SETTLED_COLUMNS)}, :settled_at) ON CONFLICT DO NOTHING"
)
_INSERT_OBJECT = "INSERT INTO objects VALUES (:provider, :object_id, :project_id, :request_id) ON CONFLICT DO NOTHING"
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
_SELECT_INTENTS = f"SELECT {_quoted(_INTENT_COLUMNS)} FROM intents WHERE writer = ?"  # noqa: S608  # names of ours


class Store:
    """An open ledger file.  Every method may raise sqlite3.Error."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._writer = uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _hold_lock(_lock_file(path, self._writer))
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
            self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            self._db.execute("PRAGMA journal_mode = WAL")
            # NORMAL survives the death of the process; FULL flushes each commit, and survives loss of power.
            self._db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
            self._prepare()
        except BaseException:
            self._release_lock()
            raise

    @property
    def journal_path(self) -> Path:
        """Where this process keeps records that could not be written."""
        return _journal_file(self._path, self._writer)

    def write(
        self,
        intents: Iterable[Row],
        records: Iterable[Row],
        objects: Iterable[Row] = (),
        settlements: Iterable[Row] = (),
    ) -> None:
        """Write all of it in one transaction; a record takes its intent's place."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_INSERT_INTENT, ({**row, "writer": self._writer} for row in intents))
            rows = list(records)
            self._db.executemany(_INSERT_RECORD, rows)
            self._db.executemany("DELETE FROM intents WHERE request_id = ?", ((row["request_id"],) for row in rows))
            self._db.executemany(_INSERT_OBJECT, objects)
            self._db.executemany(_INSERT_SETTLEMENT, settlements)
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

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
        """Turn the intents of dead processes into records with basis `unsettled`; gives their number."""
        self._adopt_journals()
        writers = [row[0] for row in self._db.execute("SELECT DISTINCT writer FROM intents")]
        dead = [writer for writer in writers if writer != self._writer and _is_dead(_lock_file(self._path, writer))]
        settled = 0
        for writer in dead:
            rows = self._db.execute(_SELECT_INTENTS, (writer,)).fetchall()
            self.write((), [crashed_row(dict(zip(_INTENT_COLUMNS, row, strict=True)), now) for row in rows])
            _lock_file(self._path, writer).unlink(missing_ok=True)
            settled += len(rows)
        return settled

    def close(self, *, keep_lock_file: bool = False) -> None:
        """Close the file and give the lock back; its file stays where a journal waits to be adopted."""
        self._db.close()
        if keep_lock_file:
            self._lock.close()
        else:
            self._release_lock()

    def _adopt_journals(self) -> None:
        """Write what dead processes could not; before their intents are taken for unsettled."""
        for journal in self._path.parent.glob(_journal_file(self._path, "*").name):
            lock = journal.with_suffix("")
            if lock != _lock_file(self._path, self._writer) and _is_dead(lock):
                kept = Journal(journal).read()
                self.write((), kept, [row for row in kept if row["object_id"] is not None])
                journal.unlink(missing_ok=True)

    def _prepare(self) -> None:
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
        (version,) = self._db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        if int(version) > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"the file has schema {version}, this program knows up to {SCHEMA_VERSION}")

    def _release_lock(self) -> None:
        _lock_file(self._path, self._writer).unlink(missing_ok=True)
        self._lock.close()


def _lock_file(path: Path, writer: str) -> Path:
    return path.with_name(f"{path.name}-writer-{writer}")


def _journal_file(path: Path, writer: str) -> Path:
    return path.with_name(f"{path.name}-writer-{writer}.jsonl")


def _hold_lock(path: Path) -> IO[bytes]:
    held = path.open("wb")
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def _is_dead(path: Path) -> bool:
    """Whether the process that held the lock is gone: the kernel frees its lock however it died."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
