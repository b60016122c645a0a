"""How far the ledger is counted: the seq of the last record, and that of the last change of a record's figures.

A transaction that has locked the first one counts alone.
"""

from __future__ import annotations

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database

_SELECT = "SELECT value FROM budget_meta WHERE key = ?"
_INSERT = "INSERT INTO budget_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
_SET = "UPDATE budget_meta SET value = ? WHERE key = ?"

_DELETE = "DELETE FROM budget_meta"

_RECORD, _CHANGE = "cursor", "changes cursor"

#: SQL of both, in a query that reads counters at the same moment.
SELECT_BOTH = (
    f"(SELECT value FROM budget_meta WHERE key = '{_RECORD}'), (SELECT value FROM budget_meta WHERE key = '{_CHANGE}')"  # noqa: S608  # names of ours
)


def has_cursor(db: Database) -> bool:
    """Return True if records have been counted, or are about to be."""
    return bool(db.fetch_rows(_SELECT, (_RECORD,)))


def read_cursor(db: Database) -> int:
    """Return the seq of the last record that is counted."""
    ((seq,),) = db.fetch_rows(_SELECT, (_RECORD,))
    return int(str(seq))


def read_position(db: Database) -> Position:
    """Return both."""
    ((record, change),) = db.fetch_rows(f"SELECT {SELECT_BOTH}")
    return make_position(record, change)


def make_position(record: object, change: object) -> Position:
    """Return the position of both values as the database has them.

    Budgets of an earlier version have no position in the changes.  They are passed again: those that are counted
    already have no row of a reservation any more.
    """
    return Position(int(str(record)), 0 if change is None else int(str(change)))


def lock_cursor(db: Database, row_lock: str) -> int:
    """Lock the cursor until the transaction ends, so that nothing counts meanwhile; return that of the records."""
    ((seq,),) = db.fetch_rows(f"{_SELECT} {row_lock}", (_RECORD,))
    return int(str(seq))


def insert_position(db: Database, position: Position) -> None:
    """Begin at a position, if there is none."""
    db.run(_INSERT, (_RECORD, str(position.record)))
    db.run(_INSERT, (_CHANGE, str(position.change)))


def set_cursor(db: Database, seq: int) -> None:
    """Move the cursor of the records."""
    db.run(_SET, (str(seq), _RECORD))


def set_change_cursor(db: Database, seq: int) -> None:
    """Move the cursor of the changes, in a transaction that has locked the other one."""
    db.run(_INSERT, (_CHANGE, str(seq)))
    db.run(_SET, (str(seq), _CHANGE))


def delete_position(db: Database) -> None:
    """Forget that records have been counted, and which kinds are incomplete."""
    db.run(_DELETE)
