"""Compares the sums by hour and day with the records, while servers write both.

    for each day, in one snapshot:
        records up to the cursors ── as rows of sums ──> a scratch file ──┐
        sums of the ledger ───────────────────────────────────────────────┴── in the order of their keys ──> differences

The scratch file (scratch.py) has the sums of one day.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import Backend, Database, Read
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.reports.part_records import list_others
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.sums_state import read_state
from tornado_proxy.ledger.sums.days import END_OF_DAY, ROLLUPS, TABLES, SumTable, list_days, name_figures, read_day
from tornado_proxy.ledger.sums.item_rows import ITEMS, read_kinds
from tornado_proxy.ledger.sums.rollup_rows import DIMENSIONS, REST_PLACES, SEQS, SUMS, join_amount
from tornado_proxy.ledger.sums.scratch import add_rows, clear_day, open_scratch

#: A figure of a sum: a number of requests, an amount or quantity with 12 decimals, or a text.
Figure = int | Decimal | str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A sum that differs from its records.

    table: the table of the sum.
    span: hour, day, hour_all or day_all; the attribute for one of attribute_sums, which are by day.
    start: the start of the hour or day, RFC 3339 UTC text; "" for a row of item_shapes, which have none.
    key: the columns that the sum is by, with their values; those that are NULL are left out.
    figures: the figures that differ, by name: the sum's, and that of the records.
    """

    table: str
    span: str
    start: str
    key: Mapping[str, str]
    figures: Mapping[str, tuple[Figure, Figure]]


@dataclass(frozen=True, slots=True)
class VerifiedDay:
    """The records of a day that the sums should have, their total in USD, and the sums that differ."""

    day: str
    records: int
    total: Decimal
    differences: Iterator[Difference]


def verify_sums(backend: Backend, since: str, until: str) -> Iterator[VerifiedDay]:
    """Yield the days (YYYY-MM-DD, `until` is exclusive) that have records or sums, and how they differ.

    The differences of a day must be read before the next day.  Days of pruned records are left out.

    Raises:
        LedgerUnavailable: the ledger cannot be read, or some sums do not have all records that others have.
    """
    with backend.read() as read:
        days = list(list_days(read, since, until))
    with open_scratch() as scratch:
        for day in days:
            with backend.read(snapshot=True) as read:
                records, total = _fill(scratch, read, day, backend.name)
                yield VerifiedDay(day, records, total, _compare_day(read, scratch.read, day))
            clear_day(scratch, day)


def count_others(backend: Backend) -> int:
    """Return the number of records that the sums do not have yet, which reports add themselves.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    with backend.read(snapshot=True) as read:
        clauses = list(list_others(read, UsageFilter(), read_state(read).rolled))
        counts = [next(iter(read(f"SELECT count(*) FROM records WHERE {sql}", values))) for sql, values in clauses]  # noqa: S608
    return sum(int(number) for (number,) in counts)


def _fill(db: Database, read: Read, day: str, name: str) -> tuple[int, Decimal]:
    """Write the sums that a day should have to the scratch file; return the number of its records and their total."""
    state = read_state(read)
    if not state.has_items(day):
        raise LedgerUnavailable(
            f"{name}: some sums lack records that others have, because an earlier version wrote them; run "
            "tornado-proxy ledger rollup, and verify again"
        )
    add_rows(db, read_day(read, day, state.rolled))
    names = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)
    sql = f"SELECT {names} FROM rollups WHERE span = 'day_all' AND start >= ? AND start < ?"  # noqa: S608  # names of ours
    ((requests, *amounts),) = db.fetch_rows(sql, (day, day + END_OF_DAY))
    micro, rest, _, micro_2, rest_2, _ = (int(str(number)) for number in amounts)
    return int(str(requests)), join_amount(micro + micro_2, rest + rest_2, REST_PLACES)


def _compare_day(read: Read, expect: Read, day: str) -> Iterator[Difference]:
    shapes = dict(expect("SELECT shape, kinds FROM item_shapes", ()))
    yield from _compare_shapes(read, shapes)
    kinds = {shape: _name_kinds(text) for shape, text in shapes.items()}
    for table in TABLES:
        for span in table.spans:
            for key, found, expected in _pair_rows(read, expect, table, span, day):
                figures = _compare(found, expected, kinds.get(key[-1], ()))
                if figures:
                    row = found if expected is None else expected
                    described = _describe(expect, table, key, row)
                    yield Difference(table.name, span, key[0], described, figures)


def _compare_shapes(read: Read, shapes: Mapping[str, str]) -> Iterator[Difference]:
    """Yield the kinds of line items of a day that the ledger does not name, or names otherwise."""
    for shape, kinds in shapes.items():
        found = next((str(text) for (text,) in read("SELECT kinds FROM item_shapes WHERE shape = ?", (shape,))), None)
        if found != kinds:
            yield Difference("item_shapes", "", "", {"shape": shape}, {"kinds": (found, kinds)})


#: A row of a table of sums, by its columns.
_Row = Mapping[str, Any]


def _pair_rows(
    read: Read, expect: Read, table: SumTable, span: str, day: str
) -> Iterator[tuple[tuple[str, ...], _Row | None, _Row | None]]:
    """Yield the key of each sum of a day, its row in the ledger, and the row that it should have; None for no row."""
    columns = (*table.keys, *table.texts, *table.numbers)
    sql = (
        f"SELECT {quote_names(columns)} FROM {table.name} "  # noqa: S608  # names of ours
        f"WHERE {table.span_column} = ? AND start >= ? AND start < ? ORDER BY {quote_names(table.keys)}"
    )
    sides = [
        _list_rows(source(sql, (span, day, day + END_OF_DAY)), table, side)
        for side, source in enumerate((read, expect))
    ]
    for key, group in groupby(heapq.merge(*sides, key=itemgetter(0, 1)), key=itemgetter(0)):
        rows = {side: row for _, side, row in group}
        yield key, rows.get(0), rows.get(1)


def _list_rows(
    rows: Iterable[Sequence[Any]], table: SumTable, side: int
) -> Iterator[tuple[tuple[str, ...], int, _Row]]:
    """Yield the key, the side and the columns of each row; both sides have them in the order of their keys."""
    length = len(table.keys)
    names = (*table.texts, *table.numbers)
    for row in rows:
        yield tuple(map(str, row[:length])), side, dict(zip(names, row[length:], strict=True))


def _compare(found: _Row | None, expected: _Row | None, kinds: Sequence[str]) -> dict[str, tuple[Figure, Figure]]:
    """Return the figures that differ; a row that is missing has zeros."""
    first, second = name_figures(found or {}, kinds), name_figures(expected or {}, kinds)
    figures: dict[str, tuple[Figure, Figure]] = {
        name: (first.get(name, 0), second.get(name, 0))
        for name in (first or second)
        if first.get(name, 0) != second.get(name, 0)
    }
    if found is None or expected is None:
        return figures
    for name in DIMENSIONS:
        if found.get(name) != expected.get(name):
            figures[name] = (found.get(name), expected.get(name))
    numbers, all_numbers = found.get(SEQS), expected.get(SEQS)
    if numbers and all_numbers and _are_used(found) and set(numbers.split(",")) != set(all_numbers.split(",")):
        figures[SEQS] = (numbers, all_numbers)
    return figures


def _are_used(row: _Row) -> bool:
    """Return True if lists of requests use the numbers of records that a sum has: it has all (rollup_rows.SEQS)."""
    return len(str(row[SEQS]).split(",")) == int(row["requests"])


def _name_kinds(text: str) -> list[str]:
    """Return the names of the kinds of line items whose sums a row with this shape has."""
    first, kinds = read_kinds(text)
    return [f"{kind.type} of {kind.model}" if kind.model else kind.type for kind in kinds[first : first + ITEMS]]


def _describe(expect: Read, table: SumTable, key: tuple[str, ...], row: _Row | None) -> dict[str, str]:
    """Return the columns that a sum is by, with their values."""
    names = dict(zip(table.keys[1:], key[1:], strict=True))
    if table is not ROLLUPS:
        sql = f"SELECT {quote_names(DIMENSIONS)} FROM rollups WHERE span IN ('day', 'day_all') AND key = ?"  # noqa: S608
        found = next(iter(expect(sql, (names["key"],))), None)
        row = None if found is None else dict(zip(DIMENSIONS, found, strict=True))
    if row is None:
        return names
    del names["key"]
    return {name: str(row[name]) for name in DIMENSIONS if row[name] is not None} | names
