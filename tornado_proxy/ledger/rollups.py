"""Keeps sums of records by hour and by day, so that reports need not read every record.

    records ─┬─> cursor `rollups` ──> sums by project, caller, provider, model, endpoint, key, labels, basis
             └─> cursor `rollups.details` ──> the same without people, and sums by one attribute

The writer thread adds records after their commit, some at a time, in a transaction that moves the cursor too: each
record is counted once, whichever process wrote it and whenever a process dies.  Reports add the records after the
cursor themselves (reports/rollup_query.py), so that sums are never behind.  A record whose usage comes later is
added with its settlement.

Both cursors move together.  The second one is behind only while a ledger of an earlier version is caught up,
or a process of an earlier version writes; reports then use the first kind of sums alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert
from tornado_proxy.ledger.rollup_rows import ATTRIBUTE_COLUMNS, COLUMNS, RECORD_COLUMNS, SUMS, SumRows, make_rows

CURSOR_NAME, DETAILS_CURSOR_NAME = "rollups", "rollups.details"

#: The key in `meta` of the time since which the sums of the second cursor have all records; none if they always had.
DETAILS_SINCE_KEY = "details_since"

#: Records that one transaction adds: some 20 ms.
BATCH_SIZE = 2000

#: The columns that a settlement replaces.
_SETTLED = ("model", "basis", "subtotal", "surcharge")


def _list_columns(figures: str) -> str:
    """Return SQL of RECORD_COLUMNS, with the figures of `figures`: the record, or its settlement."""
    tables = {name: figures if name in _SETTLED else "r" for name in RECORD_COLUMNS}
    columns = {name: f'{table}."{name}"' for name, table in tables.items()}
    return ", ".join({**columns, "model": f"coalesce({figures}.model, r.model_requested)"}.values())


_SELECT = (
    f"SELECT r.seq, r.started_at, {_list_columns('r')} FROM records r "  # noqa: S608  # names of ours
    "WHERE r.seq > ? AND r.seq <= ? ORDER BY r.seq LIMIT ?"
)
#: The same of settled records, by the number of the change.
_SELECT_SETTLED = (
    f"SELECT c.seq, r.started_at, {_list_columns('s')} "  # noqa: S608  # names of ours
    "FROM changes c JOIN records r ON r.request_id = c.request_id JOIN settlements s ON s.request_id = c.request_id "
    "WHERE c.kind = 'settlement' AND r.basis = 'pending' AND c.seq > ? AND c.seq <= ? ORDER BY c.seq LIMIT ?"
)
_SELECT_END = "SELECT (SELECT coalesce(max(seq), 0) FROM records), (SELECT coalesce(max(seq), 0) FROM changes)"


def _change_sum(name: str, table: str) -> str:
    new, old = f"excluded.{name}", f"{table}.{name}"
    if name.endswith("_places"):
        return f"{name} = CASE WHEN {new} > {old} THEN {new} ELSE {old} END"
    return f"{name} = {old} + {new}"


def _insert_sums(table: str, columns: tuple[str, ...], key: str) -> Insert:
    update = ", ".join(_change_sum(name, table) for name in SUMS)
    return Insert(table, columns, key, update=update, numbers=frozenset(SUMS))


_INSERT_SUMS = _insert_sums("rollups", COLUMNS, "span, start, key")
_INSERT_ATTRIBUTES = _insert_sums("attribute_sums", ATTRIBUTE_COLUMNS, "name, start, value, key")
#: In the order of their names: the main one is the first.
_SELECT_CURSORS = "SELECT position FROM cursors WHERE name IN ('rollups', 'rollups.details') ORDER BY name"
_INSERT_CURSOR = "INSERT INTO cursors (name, position, moved_at) VALUES (?, '0.0', '') ON CONFLICT (name) DO NOTHING"
_MOVE_CURSOR = "UPDATE cursors SET position = ? WHERE name = ?"
_SELECT_PRUNED = "SELECT value FROM meta WHERE key = 'pruned_before'"
_INSERT_SINCE = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


@dataclass(frozen=True, slots=True)
class _Cursors:
    """The positions of both cursors."""

    sums: Position
    details: Position


def roll_up(db: Database, dialect: Dialect, limit: int = BATCH_SIZE) -> bool:
    """Add up to `limit` records and settlements to the sums; return True if there may be more.

    Raises:
        StoreError: the database fails.
        ValueError: an amount has more than 12 decimals.
    """
    end = _find_end(db, dialect)
    with db.transaction():
        cursors = _lock_cursors(db, dialect)
        batch = _read_batch(db, cursors.sums, end, limit)
        rows = make_rows(batch.rows)
        db.insert(_INSERT_SUMS, rows.sums)
        _move(db, CURSOR_NAME, cursors.sums, batch.position)
        is_behind = cursors.details != cursors.sums
        if is_behind:
            batch = _read_batch(db, cursors.details, cursors.sums, limit)
            rows = make_rows(batch.rows)
        _insert_details(db, rows)
        _move(db, DETAILS_CURSOR_NAME, cursors.details, batch.position)
    return batch.is_full or is_behind


def rebuild(db: Database, dialect: Dialect) -> None:
    """Make the sums again from the records; those of records that were pruned are kept."""
    while roll_up(db, dialect):
        pass
    with db.transaction():
        cursors = _lock_cursors(db, dialect)
        position = cursors.sums
        _move(db, DETAILS_CURSOR_NAME, cursors.details, position)
        pruned = db.fetch_rows(_SELECT_PRUNED)
        since = str(pruned[0][0]) if pruned else ""
        db.run("DELETE FROM rollups WHERE start >= ?", (since,))
        db.run("DELETE FROM attribute_sums WHERE start >= ?", (since,))
        for sql, end in ((_SELECT, position.record), (_SELECT_SETTLED, position.change)):
            seq = 0
            while records := db.fetch_rows(sql, (seq, end, BATCH_SIZE)):
                seq = _find_last(records)
                rows = make_rows([row for row in records if str(row[1]) >= since])
                db.insert(_INSERT_SUMS, rows.sums)
                _insert_details(db, rows)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some records and settlements, the position after them, and True if there may be more."""

    rows: Sequence[Sequence[object]]
    position: Position
    is_full: bool


def _read_batch(db: Database, after: Position, end: Position, limit: int) -> _Batch:
    records = db.fetch_rows(_SELECT, (after.record, end.record, limit))
    if len(records) == limit:
        return _Batch(records, Position(_find_last(records), after.change), is_full=True)
    # Settlements when all records are added: then each has its record.
    settled = db.fetch_rows(_SELECT_SETTLED, (after.change, end.change, limit))
    is_full = len(settled) == limit
    last_change = _find_last(settled) if is_full else max(end.change, after.change)
    return _Batch([*records, *settled], Position(max(end.record, after.record), last_change), is_full)


def _lock_cursors(db: Database, dialect: Dialect) -> _Cursors:
    """Return the positions of the cursors, which no other transaction moves before this one has ended."""
    rows = db.fetch_rows(f"{_SELECT_CURSORS} {dialect.row_lock}")
    if len(rows) < 2:
        # Sums that begin now do not have the records that were pruned.
        for (before,) in db.fetch_rows(_SELECT_PRUNED):
            db.run(_INSERT_SINCE, (DETAILS_SINCE_KEY, before))
        for name in (CURSOR_NAME, DETAILS_CURSOR_NAME):
            db.run(_INSERT_CURSOR, (name,))
        rows = db.fetch_rows(f"{_SELECT_CURSORS} {dialect.row_lock}")
    (sums,), (details,) = rows
    return _Cursors(Position.parse(str(sums)), Position.parse(str(details)))


def _insert_details(db: Database, rows: SumRows) -> None:
    db.insert(_INSERT_SUMS, rows.all_people)
    db.insert(_INSERT_ATTRIBUTES, rows.attributes)


def _move(db: Database, name: str, old: Position, new: Position) -> None:
    if new != old:
        db.run(_MOVE_CURSOR, (str(new), name))


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
