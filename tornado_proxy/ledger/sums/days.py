"""The sums by hour and day of one day: which rows of which tables they are, and the records that make them.

Sums are compared with the records (verification.py), and corrected (rebuild.py), day by day, so that neither
holds more than a batch of records in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.sums import item_rows
from tornado_proxy.ledger.sums.item_rows import ITEMS, MILLI
from tornado_proxy.ledger.sums.rollup_rows import (
    ALL_PEOPLE,
    ANNOTATIONS,
    ATTRIBUTES,
    DIMENSIONS,
    MICRO,
    REST_PLACES,
    SEQS,
    SUMS,
)
from tornado_proxy.ledger.sums.rollups import BATCH_SIZE, SELECT_PRUNED, AddedRows, list_columns, make_added_rows

#: Runs a query of a connection for reading or writing.
Fetch = Callable[[str, Sequence[object]], Iterable[Sequence[Any]]]

#: A text after every time of a day, which it follows.
END_OF_DAY = "T~"


@dataclass(frozen=True, slots=True)
class SumTable:
    """A table of sums.

    name: the table.
    span_column: its first key column.
    spans: the values of that column.
    keys: the other key columns, the time first.
    texts, numbers: its other columns.
    """

    name: str
    span_column: str
    spans: tuple[str, ...]
    keys: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]


ROLLUPS = SumTable(
    "rollups",
    "span",
    ("hour", "day", "hour" + ALL_PEOPLE, "day" + ALL_PEOPLE),
    ("start", "key"),
    (*DIMENSIONS, SEQS),
    SUMS,
)
ATTRIBUTE_SUMS = SumTable("attribute_sums", "name", (*ATTRIBUTES, ANNOTATIONS), ("start", "value", "key"), (), SUMS)
ITEM_SUMS = SumTable(
    "item_sums",
    "span",
    ("day", "day" + ALL_PEOPLE, "hour" + ALL_PEOPLE),
    ("start", "key", "shape"),
    (),
    item_rows.SUMS,
)
TABLES = (ROLLUPS, ATTRIBUTE_SUMS, ITEM_SUMS)

# In the order of the index of the time, in which both databases begin at the last record of the batch before.
_SELECT_DAY = (
    f"SELECT r.seq, r.started_at, {list_columns('r')} FROM records r "  # noqa: S608  # names of ours
    "WHERE r.started_at >= ? AND r.started_at < ? AND (r.started_at > ? OR r.seq > ?) AND r.seq <= ? "
    "ORDER BY r.started_at, r.seq LIMIT ?"
)
#: The same of records that were settled later, with the figures of their settlements.
_SELECT_SETTLED_DAY = (
    f"SELECT r.seq, r.started_at, {list_columns('s')} FROM records r "  # noqa: S608  # names of ours
    "JOIN changes c ON c.request_id = r.request_id AND c.kind = 'settlement' "
    "JOIN settlements s ON s.request_id = r.request_id "
    "WHERE r.basis = 'pending' AND r.started_at >= ? AND r.started_at < ? AND (r.started_at > ? OR r.seq > ?) "
    "AND c.seq <= ? ORDER BY r.started_at, r.seq LIMIT ?"
)


def name_figures(row: Mapping[str, Any], kinds: Sequence[str] = ()) -> dict[str, int | Decimal]:
    """Return the figures of a row, by its columns; `kinds` names those of line items.

    Databases carry nothing from one column to the next, so that the same amount can have other parts.
    """
    if not row:
        return {}
    figures: dict[str, int | Decimal] = {"requests": int(row["requests"])}
    for name in ("subtotal", "surcharge"):
        if f"{name}_micro" in row:
            figures[name] = _join(row[f"{name}_micro"], row[f"{name}_rest"], MICRO)
            figures[f"decimals of {name}"] = int(row[f"{name}_places"])
    for number in range(ITEMS if "quantity_0" in row else 0):
        kind = kinds[number] if number < len(kinds) else f"kind {number}"
        figures[f"quantity of {kind}"] = _join(row[f"quantity_{number}"], row[f"quantity_rest_{number}"], MILLI)
        figures[f"amount of {kind}"] = _join(row[f"amount_{number}"], row[f"amount_rest_{number}"], MICRO)
    return figures


def _join(number: int | None, rest: int | None, parts: int) -> Decimal:
    return Decimal((number or 0) * parts + (rest or 0)).scaleb(-REST_PLACES)


def list_days(fetch: Fetch, since: str, until: str) -> Iterator[str]:
    """Yield the days (YYYY-MM-DD) that have records or sums, in order, from `since` up to `until`, exclusive.

    Days of which records may have been pruned are left out: only archives have these.
    """
    day = _find_day(fetch, max(since, _find_whole(fetch)))
    while day is not None and day < until:
        yield day
        day = _find_day(fetch, day + END_OF_DAY)


def is_pruned(fetch: Fetch, day: str) -> bool:
    """Return True if records of a day may have been pruned."""
    return day < _find_whole(fetch)


def _find_whole(fetch: Fetch) -> str:
    """Return the first day of which no record has been pruned; "" if none ever was."""
    return max((str(value)[:10] for (value,) in fetch(SELECT_PRUNED, ())), default="")


def _find_day(fetch: Fetch, after: str) -> str | None:
    found = [*fetch("SELECT min(started_at) FROM records WHERE started_at >= ?", (after,))]
    for table in TABLES:
        sql = f"SELECT min(start) FROM {table.name} WHERE {table.span_column} = ? AND start >= ?"  # noqa: S608
        for span in table.spans:
            found += fetch(sql, (span, after))
    return min((str(start)[:10] for (start,) in found if start is not None), default=None)


def read_day(fetch: Fetch, day: str, position: Position) -> Iterator[AddedRows]:
    """Yield the rows that the sums of a day have up to a position, in parts."""
    for sql, end in ((_SELECT_DAY, position.record), (_SELECT_SETTLED_DAY, position.change)):
        start, seq = day, 0
        while records := list(fetch(sql, (start, day + END_OF_DAY, start, seq, end, BATCH_SIZE))):
            seq, start = int(records[-1][0]), str(records[-1][1])
            yield make_added_rows(records)


def delete_day(db: Database, day: str) -> None:
    """Delete the sums of a day, in a transaction."""
    for table in TABLES:
        sql = f"DELETE FROM {table.name} WHERE {table.span_column} = ? AND start >= ? AND start < ?"  # noqa: S608
        for span in table.spans:
            db.run(sql, (span, day, day + END_OF_DAY))
