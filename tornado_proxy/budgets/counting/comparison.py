"""Compares the current counters with the records of the ledger, some at a time.

    sums of the records, as they are read ──> a scratch file: the sums of all counters, up to the `position`
    for some counters, in the order of their keys, and the position of that moment:
        records, and later figures of records, up to it ──> scratch file;  position = that of the counters
        compare ──> a page of those that differ, most often none
            in a transaction that alone counts: compare them again, with the records counted meanwhile

Memory does not grow with the number of counters, records or settlements, and nothing is locked for longer than a page
takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import chain

from tornado_proxy.budgets.counting import ledger_sums
from tornado_proxy.budgets.counting.counters import FIRST_KEY, CounterKey, read_page, read_settled, sum_by_key
from tornado_proxy.budgets.counting.expected_counters import ExpectedCounters
from tornado_proxy.budgets.counting.settlements import list_corrections
from tornado_proxy.domain.budgets.counter import CounterKind
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect

#: Counters that are compared at once.
_PAGE_SIZE = 500

#: The expected spend of counters that differ, by their keys.
Differing = Mapping[CounterKey, Decimal]


@dataclass(frozen=True, slots=True)
class Compared:
    """The counters of some kinds in the periods of `now`, and the ledger whose records they are compared with."""

    budgets: Database
    ledger: Database
    dialect: Dialect
    kinds: Sequence[CounterKind]
    now: datetime


class Comparison:
    """A comparison, from the records and changes up to `position`, whose sums are in `expected`."""

    def __init__(self, compared: Compared, expected: ExpectedCounters, position: Position) -> None:
        self._compared = compared
        self._expected = expected
        self._position = position

    def find_differing(self) -> Iterator[Differing]:
        """Yield the counters that differ, some at a time."""
        compared = self._compared
        after = FIRST_KEY if compared.kinds else None
        while after is not None:
            found, position = read_page(compared.budgets, compared.kinds, after, compared.now, _PAGE_SIZE)
            self._advance(position)
            expected = self._expected.read_page(after, _PAGE_SIZE)
            # Keys up to the end are known on both sides.
            end = min((next(reversed(side)) for side in (found, expected) if len(side) == _PAGE_SIZE), default=None)
            keys = [key for key in {**expected, **found} if end is None or key <= end]
            differing = {
                key: expected.get(key, Decimal(0)) for key in keys if found.get(key, 0) != expected.get(key, Decimal(0))
            }
            if differing:
                yield differing
            after = end

    def correct(self, differing: Differing, position: Position) -> dict[CounterKey, tuple[Decimal, Decimal]]:
        """Return the spend that counters have and should have, for those that still differ.

        Call it for each page before the next one, in a transaction that alone counts and has counted up to `position`.
        """
        compared = self._compared
        later = sum_by_key(pair for pair in self._list_amounts(position) if pair[0] in differing)
        ends = (min(differing), max(differing))
        settled = read_settled(compared.budgets, compared.kinds, ends, compared.now)
        figures = {
            key: (settled.get(key, Decimal(0)), amount + later.get(key, Decimal(0)))
            for key, amount in differing.items()
        }
        return {key: (found, expected) for key, (found, expected) in figures.items() if found != expected}

    def _advance(self, position: Position) -> None:
        self._expected.add(self._list_amounts(position))
        self._position = position

    def _list_amounts(self, last: Position) -> Iterator[ledger_sums.CounterAmount]:
        """Yield the amounts of the records and changes that follow the position, up to `last`."""
        compared, first = self._compared, self._position
        records = ledger_sums.list_amounts(
            compared.ledger, compared.dialect, compared.kinds, compared.now, (first.record, last.record)
        )
        changes = (first.change, last.change)
        return chain(records, list_corrections(compared.ledger, compared.kinds, compared.now, changes))
