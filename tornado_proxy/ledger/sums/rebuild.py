"""Corrects the sums by hour and day from the records, in short transactions, while servers write both.

    records of a day up to the cursors ──> a scratch file with the sums that the day should have
    for some sums of the day, in the order of their keys:
        later records up to the cursors ──> scratch file        no lock is held
        lock the cursors; if they have moved since then, once more from the line above
        compare; change, add and delete the sums that differ; commit

No process adds records to the sums while the cursors are locked, so both sides are the sums of the same records.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, Insert, quote_names
from tornado_proxy.ledger.sums.days import END_OF_DAY, TABLES, SumTable, is_pruned, list_days, name_figures, read_day
from tornado_proxy.ledger.sums.rollup_rows import SEQS
from tornado_proxy.ledger.sums.rollups import (
    BATCH_SIZE,
    CORRECT_SHAPES,
    lock_cursors,
    make_added_rows,
    read_batch,
    read_cursors,
    roll_up,
)
from tornado_proxy.ledger.sums.scratch import add_rows, clear_day, open_scratch
from tornado_proxy.ledger.writer_turns import pause_for_writers

#: A text after every day.
END_OF_TIME = "~"

#: Sums of one transaction, for which the writers of an SQLite file wait.
_PAGE_SIZE = 200

#: Records that one transaction adds, for which these wait, too.
_CATCH_UP_SIZE = 500

#: The columns of a key, without the span.
_Key = tuple[str, ...]

#: A row of a table of sums without its span: its key, its texts and its numbers.
_Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The number of sums that were not those of the records, and the seconds of the longest transaction."""

    corrected: int
    longest_s: float


def catch_up(db: Database, dialect: Dialect) -> float:
    """Add all records to the sums that they lack; return the seconds of the longest transaction."""
    longest_s, more = 0.0, True
    while more:
        began = time.monotonic()
        more = roll_up(db, dialect, _CATCH_UP_SIZE)
        longest_s = max(longest_s, pause_for_writers(dialect, began))
    return longest_s


def rebuild(db: Database, dialect: Dialect, since: str = "", until: str = END_OF_TIME) -> Rebuilt:
    """Correct the sums of some days (YYYY-MM-DD, `until` is exclusive); those of pruned records are kept.

    Raises:
        StoreError: the database fails.
    """
    rebuilt = [Rebuilt(0, catch_up(db, dialect))]
    with open_scratch() as scratch:
        for day in list(list_days(db.fetch_rows, since, until)):
            rebuilt.append(_Day(db, dialect, scratch, day).rebuild())
            clear_day(scratch, day)
    return Rebuilt(sum(each.corrected for each in rebuilt), max(each.longest_s for each in rebuilt))


class _Pruned(Exception):
    """Records of a day have been pruned, so that its sums are more than those of the records."""


class _Day:
    """The sums of a day in the ledger, and in a scratch file those that it should have up to a position."""

    def __init__(self, db: Database, dialect: Dialect, scratch: Database, day: str) -> None:
        self._db = db
        self._dialect = dialect
        self._scratch = scratch
        self._day = day
        self._position = Position()
        self._corrected = 0
        self._longest_s = 0.0

    def rebuild(self) -> Rebuilt:
        """Correct all sums of the day."""
        self._position = self._find_position()
        add_rows(self._scratch, read_day(self._db.fetch_rows, self._day, self._position))
        self._correct_shapes()
        with contextlib.suppress(_Pruned):
            for table in TABLES:
                for span in table.spans:
                    after: _Key | None = (self._day, *("" for _ in table.keys[1:]))
                    while after is not None:
                        after = self._correct_page(table, span, after)
        return Rebuilt(self._corrected, self._longest_s)

    def _find_position(self) -> Position:
        """Return the position of the cursors."""
        while len(positions := set(read_cursors(self._db).values())) > 1:
            catch_up(self._db, self._dialect)  # a process of an earlier version has moved some of them
        return positions.pop()

    def _advance(self) -> None:
        """Add the records between the position and that of the cursors to the scratch file."""
        end = self._find_position()
        while self._position != end:
            batch = read_batch(self._db, self._position, end, BATCH_SIZE)
            rows = [row for row in batch.rows if str(row[1]).startswith(self._day)]
            add_rows(self._scratch, [make_added_rows(rows)])
            self._position = batch.position

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db.transaction():
            began = time.monotonic()
            yield
        self._longest_s = max(self._longest_s, pause_for_writers(self._dialect, began))

    def _correct_shapes(self) -> None:
        """Correct the kinds of line items of the rows of the day."""
        after = ""
        sql = "SELECT shape, kinds FROM item_shapes WHERE shape > ? ORDER BY shape LIMIT ?"
        while expected := self._scratch.fetch_rows(sql, (after, _PAGE_SIZE)):
            after = str(expected[-1][0])
            marks = ", ".join("?" * len(expected))
            names = f"SELECT shape, kinds FROM item_shapes WHERE shape IN ({marks})"  # noqa: S608  # placeholders
            found = set(self._db.fetch_rows(names, [shape for shape, _ in expected]))
            differing = [row for row in expected if row not in found]
            self._corrected += len(differing)
            if differing:
                with self._transaction():
                    self._db.insert(CORRECT_SHAPES, differing)

    def _correct_page(self, table: SumTable, span: str, after: _Key) -> _Key | None:
        """Correct the sums that follow a key; return the last key of the page, None if no sum follows."""
        while True:
            self._advance()
            with self._transaction():
                if set(lock_cursors(self._db, self._dialect).values()) == {self._position}:
                    if is_pruned(self._db.fetch_rows, self._day):
                        raise _Pruned
                    return self._compare_page(table, span, after)

    def _compare_page(self, table: SumTable, span: str, after: _Key) -> _Key | None:
        values = (span, *after, self._day + END_OF_DAY, _PAGE_SIZE)
        sides = [source.fetch_rows(_select_page(table), values) for source in (self._db, self._scratch)]
        keys = len(table.keys)
        # Keys up to the end are known on both sides.
        end = min((_key(side[-1], keys) for side in sides if len(side) == _PAGE_SIZE), default=None)
        found, expected = ({key: row for row in side if (key := _key(row, keys)) <= (end or key)} for side in sides)
        differing = [row for key, row in expected.items() if key not in found or not _are_same(table, found[key], row)]
        self._db.insert(_make_correction(table), [(span, *row) for row in differing])
        surplus = found.keys() - expected.keys()
        for key in surplus:
            self._db.run(_delete_sum(table), (span, *key))
        self._corrected += len(differing) + len(surplus)
        return end


def _key(row: _Row, length: int) -> _Key:
    return tuple(map(str, row[:length]))


def _are_same(table: SumTable, found: _Row, expected: _Row) -> bool:
    """Return True if two rows have the same values: the parts of an amount can differ, as the order of records."""
    return tuple(found) == tuple(expected) or _read_values(table, found) == _read_values(table, expected)


def _read_values(table: SumTable, row: _Row) -> object:
    values = dict(zip((*table.texts, *table.numbers), row[len(table.keys) :], strict=True))
    seqs = values.pop(SEQS, None)
    texts = [values.get(name) for name in table.texts]
    return texts, None if seqs is None else sorted(str(seqs).split(",")), name_figures(values)


@cache
def _select_page(table: SumTable) -> str:
    keys = quote_names(table.keys)
    marks = ", ".join("?" * len(table.keys))
    return (
        f"SELECT {quote_names((*table.keys, *table.texts, *table.numbers))} FROM {table.name} "  # noqa: S608  # names of ours
        f"WHERE {table.span_column} = ? AND ({keys}) > ({marks}) AND start < ? ORDER BY {keys} LIMIT ?"
    )


@cache
def _delete_sum(table: SumTable) -> str:
    return f"DELETE FROM {table.name} WHERE {' AND '.join(f'{name} = ?' for name in (table.span_column, *table.keys))}"  # noqa: S608  # names of ours


@cache
def _make_correction(table: SumTable) -> Insert:
    """Return the INSERT that replaces a sum."""
    key = (table.span_column, *table.keys)
    others = (*table.texts, *table.numbers)
    update = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    return Insert(table.name, (*key, *others), quote_names(key), update, frozenset(table.numbers))
