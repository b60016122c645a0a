"""Keeps sums of records by hour and by day, so that reports need not read every record.

    records ──> cursor `rollups` ──> sums by span, start, project, caller, provider, model, endpoint, key, labels, basis

The writer thread adds records after their commit, some at a time, in a transaction that moves the cursor too: each
record is counted once, whichever process wrote it and whenever a process dies.  Reports add the records after the
cursor themselves (reports/rollup_query.py), so that sums are never behind.  A record whose usage comes later is
added with its settlement.
"""

from __future__ import annotations

from collections.abc import Sequence

from tornado_proxy.ledger.changes import Position
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
#: The same of settled records, by the number of the change.
_SELECT_SETTLED = (
    'SELECT c.seq, r.started_at, r.project_id, r.room, r.participant, r."user", r.issuer, r.provider, '
    "coalesce(s.model, r.model_requested), r.endpoint, r.provider_key, r.labels, s.basis, s.subtotal, s.surcharge "
    "FROM changes c JOIN records r ON r.request_id = c.request_id JOIN settlements s ON s.request_id = c.request_id "
    "WHERE c.kind = 'settlement' AND r.basis = 'pending' AND c.seq > ? AND c.seq <= ? ORDER BY c.seq LIMIT ?"
)
_SELECT_END = "SELECT (SELECT coalesce(max(seq), 0) FROM records), (SELECT coalesce(max(seq), 0) FROM changes)"


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
    """Add up to `limit` records and settlements to the sums; return True if there may be more.

    Raises:
        StoreError: the database fails.
        ValueError: an amount has more than 12 decimals.
    """
    end = _find_end(db, dialect)
    with db.transaction():
        db.run(_INSERT_CURSOR)
        ((text,),) = db.fetch_rows(f"{_SELECT_CURSOR} {dialect.row_lock}")
        position = Position.parse(str(text))
        records = db.fetch_rows(_SELECT, (position.record, end.record, limit))
        is_full = len(records) == limit
        last_record = _find_last(records) if is_full else max(end.record, position.record)
        # Settlements when all records are added: then each has its record.
        settled = [] if is_full else db.fetch_rows(_SELECT_SETTLED, (position.change, end.change, limit))
        last_change = position.change
        if not is_full:
            last_change = _find_last(settled) if len(settled) == limit else max(end.change, position.change)
        db.insert(INSERT_SUMS, make_rows([*records, *settled]))
        moved = Position(last_record, last_change)
        if moved != position:
            db.run(_MOVE_CURSOR, (str(moved),))
    return is_full or len(settled) == limit


def rebuild(db: Database, dialect: Dialect) -> None:
    """Make the sums again from the records; those of records that were pruned are kept."""
    while roll_up(db, dialect):
        pass
    with db.transaction():
        ((text,),) = db.fetch_rows(f"{_SELECT_CURSOR} {dialect.row_lock}")
        position = Position.parse(str(text))
        pruned = db.fetch_rows(_SELECT_PRUNED)
        since = str(pruned[0][0]) if pruned else ""
        db.run("DELETE FROM rollups WHERE start >= ?", (since,))
        for sql, end in ((_SELECT, position.record), (_SELECT_SETTLED, position.change)):
            seq = 0
            while rows := db.fetch_rows(sql, (seq, end, BATCH_SIZE)):
                seq = _find_last(rows)
                db.insert(INSERT_SUMS, make_rows([row for row in rows if str(row[1]) >= since]))


def _find_end(db: Database, dialect: Dialect) -> Position:
    """Return the position below which no record and no change will appear, as ledger.changes.find_end() does."""
    # A transaction of its own: writers wait for the lock that it takes.
    with db.transaction():
        if dialect.wait_for_writers:
            db.run(dialect.wait_for_writers)
        ((record, change),) = db.fetch_rows(_SELECT_END)
    return Position(int(str(record)), int(str(change)))


def _find_last(rows: Sequence[Sequence[object]]) -> int:
    return int(str(rows[-1][0]))
