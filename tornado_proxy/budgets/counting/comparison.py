"""Compares the current counters with the records of the ledger, some at a time.

    sums of the records, as they are read ──> a scratch file: the sums of all counters, up to the record `position`
    for some counters, in the order of their keys, and the cursor of that moment:
        records up to the cursor ──> scratch file;  position = cursor
        compare ──> the keys that differ, most often none

Memory does not grow with the number of counters, and nothing is locked.  A settlement that is counted meanwhile makes a
counter differ here; the transaction that corrects the counters compares those keys again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import chain

from tornado_proxy.budgets.counting import ledger_sums
from tornado_proxy.budgets.counting.counted_settlements import list_corrections
from tornado_proxy.budgets.counting.counters import FIRST_KEY, CounterKey, read_page, read_settled, sum_by_key
from tornado_proxy.budgets.counting.cursor import read_cursor
from tornado_proxy.budgets.counting.expected_counters import ExpectedCounters
from tornado_proxy.domain.budgets.counter import CounterKind, encode_kind
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect

#: Counters that are compared at once.
_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Compared:
    """The counters of some kinds in the periods of `now`, and the ledger whose records they are compared with."""

    budgets: Database
    ledger: Database
    dialect: Dialect
    kinds: Sequence[CounterKind]
    now: datetime


class Comparison:
    """A comparison, from the records up to `position`, whose sums are in `expected`."""

    def __init__(self, compared: Compared, expected: ExpectedCounters, position: int) -> None:
        self._compared = compared
        self._expected = expected
        self._position = position

    def find_differing(self) -> Iterator[list[CounterKey]]:
        """Yield the keys of counters that seem to differ, some at a time."""
        compared = self._compared
        corrections = sum_by_key(self._list_corrections(self._position))
        after = FIRST_KEY if compared.kinds else None
        while after is not None:
            found, cursor = read_page(compared.budgets, compared.kinds, after, compared.now, _PAGE_SIZE)
            self._advance(read_cursor(compared.budgets) if cursor is None else cursor)
            expected = self._expected.read_page(after, _PAGE_SIZE)
            # Keys up to the end are known on both sides.
            end = min((next(reversed(side)) for side in (found, expected) if len(side) == _PAGE_SIZE), default=None)
            keys = [key for key in {**expected, **found} if end is None or key <= end]
            differing = [
                key
                for key in keys
                if found.get(key, 0) != expected.get(key, Decimal(0)) + corrections.get(key, Decimal(0))
            ]
            if differing:
                yield differing
            after = end

    def list_differences(self, differing: Iterable[CounterKey], last_seq: int) -> dict[CounterKey, Decimal]:
        """Return the amounts that counters lack, in a transaction that alone counts, and has counted up to a seq."""
        keys = frozenset(differing)
        compared = self._compared
        later = chain(self._list_amounts(last_seq), self._list_corrections(last_seq))
        rest = sum_by_key(pair for pair in later if pair[0] in keys)
        expected = self._expected.read(keys)
        settled = read_settled(compared.budgets, keys)
        differences = {key: expected[key] + rest.get(key, Decimal(0)) - settled[key] for key in keys}
        # Records can have been pruned since their sums were read.
        whole = set(map(encode_kind, ledger_sums.list_whole(compared.ledger, compared.kinds, compared.now)))
        return {key: difference for key, difference in differences.items() if difference and key.kind in whole}

    def _advance(self, cursor: int) -> None:
        self._expected.add(self._list_amounts(cursor))
        self._position = max(self._position, cursor)

    def _list_amounts(self, last_seq: int) -> Iterator[ledger_sums.CounterAmount]:
        """Yield the amounts of the records that follow the position, up to `last_seq`."""
        compared = self._compared
        return ledger_sums.list_amounts(
            compared.ledger, compared.dialect, compared.kinds, compared.now, (self._position, last_seq)
        )

    def _list_corrections(self, last_seq: int) -> Iterator[ledger_sums.CounterAmount]:
        compared = self._compared
        return list_corrections((compared.budgets, compared.ledger), compared.kinds, compared.now, last_seq)
