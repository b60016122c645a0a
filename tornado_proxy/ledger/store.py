"""The SQLite file: tables, transactions, and intents of dead processes.  Synchronous; used by one thread.

    intents   requests under way; a row goes in the transaction that writes its record
    records   append-only: triggers refuse UPDATE and DELETE
    meta      schema version

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

from tornado_proxy.ledger.journal import Journal
from tornado_proxy.ledger.rows import RECORD_COLUMNS, Row, crashed_row

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

    def write(self, intents: Iterable[Row], records: Iterable[Row]) -> None:
        """Write all of it in one transaction; a record takes its intent's place."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_INSERT_INTENT, ({**row, "writer": self._writer} for row in intents))
            rows = list(records)
            self._db.executemany(_INSERT_RECORD, rows)
            self._db.executemany("DELETE FROM intents WHERE request_id = ?", ((row["request_id"],) for row in rows))
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

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
                self.write((), Journal(journal).read())
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
