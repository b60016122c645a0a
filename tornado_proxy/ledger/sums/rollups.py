"""Keeps sums of records by hour and by day, so that reports need not read every record.

    records ─┬─> cursor `rollups` ──> sums by project, caller, provider, model, endpoint, key, labels, basis
             ├─> cursor `rollups.details` ──> the same without people, and sums by one attribute
             └─> cursor `rollups.items` ──> sums by kind of line item, and by annotations

The writer thread adds records after their commit, some at a time, in a transaction that moves the cursors too: each
record is counted once, whichever process wrote it and whenever a process dies.  Reports add the records after the
cursor themselves (reports/rollup_query.py), so that sums are never behind.  A record whose usage comes later is
added with its settlement.

All cursors move together.  A later one is behind only while a ledger of an earlier version is caught up, or a process
of an earlier version writes; reports then use the other kinds of sums alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tornado_proxy.ledger.changes import Position, find_written_end
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert
from tornado_proxy.ledger.sums import item_rows
from tornado_proxy.ledger.sums.item_rows import ItemRows, make_item_rows
from tornado_proxy.ledger.sums.rollup_rows import (
    ATTRIBUTE_COLUMNS,
    COLUMNS,
    MAX_SEQS_CHARACTERS,
    RECORD_COLUMNS,
    SEQS,
    SUMS,
    SumRows,
    make_rows,
)

CURSOR_NAME, DETAILS_CURSOR_NAME, ITEMS_CURSOR_NAME = "rollups", "rollups.details", "rollups.items"

#: The keys in `meta` of the time since which the sums of a later cursor have all records; none if they always had.
SINCE_KEYS = {DETAILS_CURSOR_NAME: "details_since", ITEMS_CURSOR_NAME: "items_since"}

#: Records that one transaction adds: up to 90 ms of CPU time if each has a sum of its own.
BATCH_SIZE = 2000

#: The columns that a settlement replaces.
_SETTLED = ("model", "basis", "subtotal", "surcharge", "line_items")


def list_columns(figures: str) -> str:
    """Return SQL of RECORD_COLUMNS, with the figures of `figures`: the record, or its settlement."""
    tables = {name: figures if name in _SETTLED else "r" for name in RECORD_COLUMNS}
    columns = {name: f'{table}."{name}"' for name, table in tables.items()}
    return ", ".join({**columns, "model": f"coalesce({figures}.model, r.model_requested)"}.values())


_SELECT = (
    f"SELECT r.seq, r.started_at, {list_columns('r')} FROM records r "  # noqa: S608  # names of ours
    "WHERE r.seq > ? AND r.seq <= ? ORDER BY r.seq LIMIT ?"
)
#: The same of settled records, by the number of the change.
_SELECT_SETTLED = (
    f"SELECT c.seq, r.started_at, {list_columns('s')} "  # noqa: S608  # names of ours
    "FROM changes c JOIN records r ON r.request_id = c.request_id JOIN settlements s ON s.request_id = c.request_id "
    "WHERE c.kind = 'settlement' AND r.basis = 'pending' AND c.seq > ? AND c.seq <= ? ORDER BY c.seq LIMIT ?"
)


def _change_sum(name: str, table: str) -> str:
    new, old = f"excluded.{name}", f"{table}.{name}"
    if name.endswith("_places"):
        return f"{name} = CASE WHEN {new} > {old} THEN {new} ELSE {old} END"
    return f"{name} = {old} + {new}"


def _insert_sums(table: str, columns: tuple[str, ...], key: str, sums: tuple[str, ...] = SUMS, *updates: str) -> Insert:
    update = ", ".join((*(_change_sum(name, table) for name in sums), *updates))
    return Insert(table, columns, key, update=update, numbers=frozenset(sums))


#: NULL stays NULL.
_CHANGE_SEQS = (
    f"{SEQS} = CASE WHEN length(rollups.{SEQS}) + length(excluded.{SEQS}) < {MAX_SEQS_CHARACTERS} "
    f"THEN rollups.{SEQS} || ',' || excluded.{SEQS} END"
)
_INSERT_SUMS = _insert_sums("rollups", COLUMNS, "span, start, key", SUMS, _CHANGE_SEQS)
_INSERT_ATTRIBUTES = _insert_sums("attribute_sums", ATTRIBUTE_COLUMNS, "name, start, value, key")
_INSERT_ITEMS = _insert_sums("item_sums", item_rows.COLUMNS, "span, start, key, shape", item_rows.SUMS)
_INSERT_SHAPES = Insert("item_shapes", item_rows.SHAPE_COLUMNS, "shape")
#: The same, which corrects the kinds of a shape; each update leaves a dead row on PostgreSQL.
CORRECT_SHAPES = Insert("item_shapes", item_rows.SHAPE_COLUMNS, "shape", update="kinds = excluded.kinds")

_SELECT_CURSORS = "SELECT name, position FROM cursors WHERE name IN (?, ?, ?)"
_INSERT_CURSOR = "INSERT INTO cursors (name, position, moved_at) VALUES (?, '0.0', '') ON CONFLICT (name) DO NOTHING"
_MOVE_CURSOR = "UPDATE cursors SET position = ? WHERE name = ?"
SELECT_PRUNED = "SELECT value FROM meta WHERE key = 'pruned_before'"
_INSERT_SINCE = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


@dataclass(frozen=True, slots=True)
class AddedRows:
    """The rows that add some records to the sums of all cursors."""

    sums: SumRows
    items: ItemRows


def _insert_main(db: Database, rows: AddedRows) -> None:
    db.insert(_INSERT_SUMS, rows.sums.sums)


def _insert_details(db: Database, rows: AddedRows) -> None:
    db.insert(_INSERT_SUMS, rows.sums.all_people)
    db.insert(_INSERT_ATTRIBUTES, rows.sums.attributes)


def _insert_items(db: Database, rows: AddedRows) -> None:
    db.insert(_INSERT_SHAPES, rows.items.shapes)
    db.insert(_INSERT_ITEMS, rows.items.sums)
    db.insert(_INSERT_ATTRIBUTES, rows.sums.annotations)


#: How each cursor adds rows to its sums; the main one is the first.
INSERTS: Mapping[str, Callable[[Database, AddedRows], None]] = {
    CURSOR_NAME: _insert_main,
    DETAILS_CURSOR_NAME: _insert_details,
    ITEMS_CURSOR_NAME: _insert_items,
}


def roll_up(db: Database, dialect: Dialect, limit: int = BATCH_SIZE, *, waits: bool = True) -> bool:
    """Add up to `limit` records and settlements to the sums; return True if there may be more.

    Without `waits` it adds nothing and returns False while another process adds some or corrects sums.

    Raises:
        StoreError: the database fails.
        ValueError: an amount has more than 12 decimals.
    """
    end = find_written_end(db, dialect.wait_for_writers)
    with db.transaction():
        cursors = lock_cursors(db, dialect, waits=waits)
        if not cursors:
            return False
        main = cursors[CURSOR_NAME]
        # A cursor that is behind comes up to where the main one was.
        starts = {position: main for position in cursors.values()} | {main: end}
        more = False
        for start, limit_position in starts.items():
            batch = read_batch(db, start, limit_position, limit)
            rows = make_added_rows(batch.rows)
            for name in (name for name, position in cursors.items() if position == start):
                INSERTS[name](db, rows)
                _move(db, name, start, batch.position)
            more = more or batch.is_full or start != main
    return more


def make_added_rows(records: Sequence[Sequence[object]]) -> AddedRows:
    """Return the rows that add records to the sums: seq, start and RECORD_COLUMNS of each record."""
    sums = make_rows(records)
    return AddedRows(sums, make_item_rows(records, sums.keys))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records and settlements, the position after them, and True if there may be more."""

    rows: Sequence[Sequence[object]]
    position: Position
    is_full: bool


def read_batch(db: Database, after: Position, end: Position, limit: int) -> Batch:
    """Return up to `limit` records, or settlements, that follow a position, as make_added_rows() needs them."""
    records = db.fetch_rows(_SELECT, (after.record, end.record, limit))
    if len(records) == limit:
        return Batch(records, Position(_find_last(records), after.change), is_full=True)
    # Settlements when all records are added: then each has its record.
    settled = db.fetch_rows(_SELECT_SETTLED, (after.change, end.change, limit))
    is_full = len(settled) == limit
    last_change = _find_last(settled) if is_full else max(end.change, after.change)
    return Batch([*records, *settled], Position(max(end.record, after.record), last_change), is_full)


def lock_cursors(db: Database, dialect: Dialect, *, waits: bool = True) -> dict[str, Position]:
    """Return the positions of the cursors, which no other transaction moves before this one has ended.

    Without `waits`, return none of them if another transaction has locked one.
    """
    lock = dialect.row_lock if waits or not dialect.row_lock else f"{dialect.row_lock} SKIP LOCKED"
    found = read_cursors(db, lock)
    if len(found) < len(read_cursors(db)):
        return {}
    if len(found) < len(INSERTS):
        # Sums that begin now do not have the records that were pruned.
        for (before,) in db.fetch_rows(SELECT_PRUNED):
            for name in SINCE_KEYS.keys() - found.keys():
                db.run(_INSERT_SINCE, (SINCE_KEYS[name], before))
        for name in INSERTS:
            db.run(_INSERT_CURSOR, (name,))
        found = read_cursors(db, dialect.row_lock)
    return {name: found[name] for name in INSERTS}


def read_cursors(db: Database, lock: str = "") -> dict[str, Position]:
    """Return the positions of the cursors that exist; `lock` is the end of the query."""
    rows = db.fetch_rows(f"{_SELECT_CURSORS} ORDER BY name {lock}", tuple(INSERTS))
    return {str(name): Position.parse(str(position)) for name, position in rows}


def _move(db: Database, name: str, old: Position, new: Position) -> None:
    if new != old:
        db.run(_MOVE_CURSOR, (str(new), name))


def _find_last(rows: Sequence[Sequence[object]]) -> int:
    return int(str(rows[-1][0]))
