"""The spend of counters by the records of the ledger, in a scratch file, so that memory is bounded.

    amounts, some at a time ──> scratch file ──┐
    counters, some at a time ──────────────────┴── in the order of their keys ──> those that differ

An amount is two whole numbers, so that the scratch file adds it exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice

from tornado_proxy.budgets.counting.counters import COLUMNS, KEY_COLUMNS, CounterKey
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Insert
from tornado_proxy.ledger.sums.rollup_rows import REST_PLACES, join_amount, split_amount

_CREATE = (
    "CREATE TABLE expected (kind TEXT, project_id TEXT, subject TEXT, period_begin TEXT, period_end TEXT, "
    f"micro INTEGER, rest INTEGER, PRIMARY KEY ({KEY_COLUMNS})) WITHOUT ROWID;"
)
_ADD = Insert(
    "expected",
    (*COLUMNS.split(", "), "micro", "rest"),
    KEY_COLUMNS,
    update="micro = expected.micro + excluded.micro, rest = expected.rest + excluded.rest",
)
_SELECT = f"SELECT {COLUMNS}, micro, rest FROM expected"  # noqa: S608  # names of ours
_SELECT_PAGE = f"{_SELECT} WHERE ({KEY_COLUMNS}) > (?, ?, ?, ?) ORDER BY {KEY_COLUMNS} LIMIT ?"

#: Amounts that are added up in memory before they are written.
_BATCH_SIZE = 5000


class ExpectedCounters:
    """The amounts of each counter, in a scratch file."""

    def __init__(self, scratch: Database) -> None:
        self._scratch = scratch
        scratch.run_script(_CREATE)

    def add(self, amounts: Iterable[tuple[CounterKey, Decimal]]) -> None:
        """Add amounts to counters."""
        remaining = iter(amounts)
        while some := list(islice(remaining, _BATCH_SIZE)):
            sums: defaultdict[CounterKey, Decimal] = defaultdict(Decimal)
            for key, amount in some:
                sums[key] += amount
            with self._scratch.transaction():
                rows = [(*key.values, key.period_end, *split_amount(amount)[:2]) for key, amount in sums.items()]
                self._scratch.insert(_ADD, rows)

    def read_page(self, after: CounterKey, limit: int) -> dict[CounterKey, Decimal]:
        """Return the amounts of up to `limit` counters that follow a key, in the order of their keys."""
        return _read(self._scratch.fetch_rows(_SELECT_PAGE, (*after.values, limit)))


def _read(rows: Iterable[tuple[object, ...]]) -> dict[CounterKey, Decimal]:
    return {
        CounterKey(*row[:5]): join_amount(int(str(row[5])), int(str(row[6])), REST_PLACES)  # type: ignore[arg-type]
        for row in rows
    }
