"""Keeps sums of records by hour and by day, so that reports need not read every record.

    records ──> cursor `rollups` ──> sums by span, start, project, caller, provider, model, endpoint, key, labels, basis

The writer thread adds records after their commit, some at a time, in a transaction that moves the cursor too: each
record is counted once, whichever process wrote it and whenever a process dies.  Reports add the records after the
cursor themselves (reports/rollup_query.py), so that sums are never behind.  Records whose usage comes later are not in
the sums: their figures change.
"""

from __future__ import annotations

from tornado_proxy.ledger.changes import Position, find_last_seq
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert
from tornado_proxy.ledger.rollup_rows import COLUMNS, SUMS, make_rows

CURSOR_NAME = "rollups"

#: Records that one transaction adds: some 20 ms.
BATCH_SIZE = 2000

_SELECT = (
    'SELECT seq, started_at, project_id, room, participant, "user", issuer, provider, '  # names of ours
    "coalesce(model, model_requested), endpoint, provider_key, labels, basis, subtotal, surcharge FROM records "
    "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)


def _change_sum(name: str) -> str:
    if name.endswith("_places"):
        return f"{name} = CASE WHEN excluded.{name} > rollups.{name} THEN excluded.{name} ELSE rollups.{name} END"
    return f"{name} = rollups.{name} + excluded.{name}"


INSERT_SUMS = Insert(
    "rollups", COLUMNS, "span, start, key", update=", ".join(map(_change_sum, SUMS)), numbers=frozenset(SUMS)
)
_SELECT_CURSOR = "SELECT position FROM cursors WHERE name = 'rollups'"
_INSERT_CURSOR = (
    "INSERT INTO cursors (name, position, moved_at) VALUES ('rollups', '0.0', '') ON CONFLICT (name) DO NOTHING"
)
_MOVE_CURSOR = "UPDATE cursors SET position = ? WHERE name = 'rollups'"
_SELECT_PRUNED = "SELECT value FROM meta WHERE key = 'pruned_before'"


def roll_up(db: Database, dialect: Dialect, limit: int = BATCH_SIZE) -> bool:
    """Add up to `limit` records to the sums; return True if there may be more.

    Raises:
        StoreError: the database fails.
        ValueError: an amount has more than 12 decimals.
    """
    # Before the transaction: writers wait for the lock that it takes.
    end = find_last_seq(db, dialect.wait_for_writers)
    with db.transaction():
        db.run(_INSERT_CURSOR)
        ((text,),) = db.fetch_rows(f"{_SELECT_CURSOR} {dialect.row_lock}")
        position = Position.parse(str(text))
        rows = db.fetch_rows(_SELECT, (position.record, end, limit))
        db.insert(INSERT_SUMS, make_rows(rows))
        is_full = len(rows) == limit
        last = int(str(rows[-1][0])) if is_full else max(end, position.record)
        if last != position.record:
            db.run(_MOVE_CURSOR, (str(Position(last, position.change)),))
    return is_full


def rebuild(db: Database, dialect: Dialect) -> None:
    """Make the sums again from the records; those of records that were pruned are kept."""
    while roll_up(db, dialect):
        pass
    with db.transaction():
        db.fetch_rows(f"{_SELECT_CURSOR} {dialect.row_lock}")
        pruned = db.fetch_rows(_SELECT_PRUNED)
        since = str(pruned[0][0]) if pruned else ""
        end = find_last_record(db)
        db.run("DELETE FROM rollups WHERE start >= ?", (since,))
        seq = 0
        while rows := db.fetch_rows(_SELECT, (seq, end, BATCH_SIZE)):
            seq = int(str(rows[-1][0]))
            db.insert(INSERT_SUMS, make_rows([row for row in rows if str(row[1]) >= since]))


def find_last_record(db: Database) -> int:
    """Return the seq of the last record that the sums have."""
    rows = db.fetch_rows(_SELECT_CURSOR)
    return Position.parse(str(rows[0][0])).record if rows else 0
