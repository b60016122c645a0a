"""The tables of the SQLite ledger, and statements that take many rows at once.

intents       requests under way; a row goes in the transaction that writes its record
records       append-only: triggers refuse UPDATE and DELETE, and pass over a second record of one request
settlements   append-only: what pending records came to, once each
bills         view: records, with their settlements in place of what was pending
objects       which project created which of the provider's objects
meta          schema version
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tornado_proxy.ledger.rows import INTENT_COLUMNS, OBJECT_COLUMNS, RECORD_COLUMNS, SETTLED_COLUMNS

SCHEMA_VERSION = 1

#: Rows of one statement, largest first.  Each statement gives the interpreter's lock back and waits for it again, some
#: milliseconds each time while the event loop is busy; row by row, a batch of a hundred took seconds.  Few sizes, so
#: that all statements stay prepared.
_RUNS = (256, 32, 4, 1)


def quoted(names: Iterable[str]) -> str:
    """Column names as SQL."""
    return ", ".join(f'"{name}"' for name in names)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with one group of `width` parameters for each row: `before` (?, ?), (?, ?) `after`."""

    before: str
    width: int
    after: str = ""

    def run(self, db: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
        """Execute it for all rows, in as few steps as their number allows."""
        at = 0
        for size in _RUNS:
            while len(rows) - at >= size:
                db.execute(self._sql(size), list(chain.from_iterable(rows[at : at + size])))
                at += size

    def _sql(self, rows: int) -> str:
        group = f"({', '.join('?' * self.width)})"
        return f"{self.before} {', '.join([group] * rows)} {self.after}"


def _insert(table: str, columns: Sequence[str], after: str = "") -> Statement:
    return Statement(f"INSERT INTO {table} ({quoted(columns)}) VALUES", len(columns), after)


INSERT_INTENTS = _insert("intents", (*INTENT_COLUMNS, "writer"))
INSERT_RECORDS = _insert("records", RECORD_COLUMNS)
INSERT_SETTLEMENTS = _insert(
    "settlements", ("request_id", *SETTLED_COLUMNS, "settled_at"), "ON CONFLICT (request_id) DO NOTHING"
)
INSERT_OBJECTS = _insert("objects", OBJECT_COLUMNS, "ON CONFLICT (provider, object_id) DO NOTHING")
DELETE_INTENTS = Statement("DELETE FROM intents WHERE request_id IN (VALUES", 1, ")")


def _settled(name: str) -> str:
    """A column of the view `bills`."""
    both = f'CASE WHEN s.request_id IS NULL THEN r."{name}" ELSE s."{name}" END AS "{name}"'
    return both if name in SETTLED_COLUMNS else f'r."{name}"'


_BILLS = (
    f"SELECT r.seq, {', '.join(_settled(name) for name in RECORD_COLUMNS)} "  # noqa: S608  # names of ours
    "FROM records r LEFT JOIN settlements s ON s.request_id = r.request_id"
)

_TABLES = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS intents (
    request_id TEXT PRIMARY KEY,
    writer TEXT NOT NULL,
    {", ".join(f'"{name}" TEXT' for name in INTENT_COLUMNS[1:])}
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
"""

# A trigger, not ON CONFLICT: INSERT OR REPLACE would delete the first record without asking the DELETE trigger.
_TRIGGERS = """
CREATE TRIGGER IF NOT EXISTS records_once BEFORE INSERT ON records
    WHEN EXISTS (SELECT 1 FROM records WHERE request_id = NEW.request_id OR seq = NEW.seq)
    BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER IF NOT EXISTS records_keep BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER IF NOT EXISTS records_stay BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER IF NOT EXISTS settlements_keep BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
CREATE TRIGGER IF NOT EXISTS settlements_stay BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'settlements are append-only'); END;
"""


def _added_columns(db: sqlite3.Connection) -> Iterator[str]:
    """SQL that adds the columns which an earlier version of the program did not know; the view is then made anew."""
    for table, columns in (("intents", INTENT_COLUMNS), ("records", RECORD_COLUMNS)):
        known = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
        for name in columns:
            if name not in known:
                yield f'DROP VIEW IF EXISTS bills; ALTER TABLE {table} ADD COLUMN "{name}" TEXT;'


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables, or what a later version of the program added to them, in one transaction.

    Raises:
        sqlite3.DatabaseError: the file is another program's, or a later version's.
    """
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not {"meta", "intents", "records"} <= tables:
        raise sqlite3.DatabaseError("file is not a database of this program")
    if tables:
        (version,) = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() or (0,)
        if int(version) > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is newer than this program, which knows {SCHEMA_VERSION}")
    added = "".join(_added_columns(db)) if tables else ""
    db.executescript(f"BEGIN IMMEDIATE; {added} {_TABLES} {_TRIGGERS}")
    db.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    db.execute("COMMIT")
