"""The seq of the last record of the ledger that is counted.  A transaction that has locked it counts alone."""

from __future__ import annotations

from tornado_proxy.ledger.database import Database

_SELECT = "SELECT value FROM budget_meta WHERE key = 'cursor'"
_INSERT = "INSERT INTO budget_meta (key, value) VALUES ('cursor', ?) ON CONFLICT (key) DO NOTHING"
_SET = "UPDATE budget_meta SET value = ? WHERE key = 'cursor'"
_DELETE = "DELETE FROM budget_meta WHERE key = 'cursor'"


def has_cursor(db: Database) -> bool:
    """Return True if records have been counted, or are about to be."""
    return bool(db.fetch_rows(_SELECT))


def read_cursor(db: Database) -> int:
    """Return the cursor."""
    ((seq,),) = db.fetch_rows(_SELECT)
    return int(str(seq))


def lock_cursor(db: Database, row_lock: str) -> int:
    """Lock the cursor until the transaction ends, so that nothing counts meanwhile; return it."""
    ((seq,),) = db.fetch_rows(f"{_SELECT} {row_lock}")
    return int(str(seq))


def insert_cursor(db: Database, seq: int) -> None:
    """Begin at a seq, if there is no cursor."""
    db.run(_INSERT, (str(seq),))


def set_cursor(db: Database, seq: int) -> None:
    """Move the cursor."""
    db.run(_SET, (str(seq),))


def delete_cursor(db: Database) -> None:
    """Forget that records have been counted."""
    db.run(_DELETE)
