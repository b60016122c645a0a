"""The bill page's rows, from the results of usage queries: the dearest groups, one row for all others.

The groups that are no times are ranked over the whole span.  The first of them get rows of their own, one for each
interval if the bill is grouped by time; the others are added up to one row, in each interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.dashboard.amounts import subtract
from tornado_proxy.dashboard.bill_request import BillRequest, is_interval
from tornado_proxy.ledger.reports.records_query import EXACT
from tornado_proxy.ledger.reports.usage import GroupRow, UsageResult, UsageRow

_ZERO = Decimal(0)

#: The values of a row in the groups that are no times.
_Names = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The sums of some requests, USD; `unsettled` and `pending` are numbers of requests."""

    requests: int = 0
    subtotal: Decimal = _ZERO
    surcharge: Decimal = _ZERO
    unsettled: int = 0
    pending: int = 0

    @property
    def total(self) -> Decimal:
        """The subtotal and the surcharge."""
        return EXACT.add(self.subtotal, self.surcharge)

    def add(self, row: Figures | GroupRow) -> Figures:
        """Return the exact sum of both."""
        return Figures(
            self.requests + row.requests,
            EXACT.add(self.subtotal, row.subtotal),
            EXACT.add(self.surcharge, row.surcharge),
            self.unsettled + row.unsettled,
            self.pending + row.pending,
        )


@dataclass(frozen=True, slots=True)
class BillRow:
    """A row of the bill.

    Attributes:
        start: The start of its interval, RFC 3339 UTC text; None if the bill is not grouped by time.
        names: Its values in the groups that are no times; () for the row of all others.
        others: The number of groups that are added up in it, 0 for a row of one group.
        previous: The total in the compared span; None in a bill that is grouped by time.
    """

    start: str | None
    names: _Names
    others: int
    figures: Figures
    previous: Decimal | None

    @property
    def change(self) -> Decimal:
        """The total minus that of the compared span."""
        return subtract(self.figures.total, self.previous or _ZERO)


@dataclass(frozen=True, slots=True)
class Bill:
    """The rows of a bill, their sum, and the total of the compared span."""

    request: BillRequest
    rows: tuple[BillRow, ...]
    figures: Figures
    previous: Decimal

    @property
    def change(self) -> Decimal:
        """The total minus that of the compared span."""
        return subtract(self.figures.total, self.previous)

    @property
    def is_timed(self) -> bool:
        """True if the bill is grouped by time."""
        return self.request.query.interval is not None


def make_bill(current: UsageResult, previous: UsageResult, request: BillRequest) -> Bill:
    """Return the bill of two results: of the span, and of the one that it is compared with."""
    rows, earlier = group_rows(current), group_rows(previous)
    before = {row.group: row.total for row in earlier}
    shown = _rank(rows, before, request)
    timed = request.query.interval is not None
    sums: dict[tuple[str | None, _Names], Figures] = {}
    for row in rows:
        key = (row.start, row.group if row.group in shown else ())
        sums[key] = sums.get(key, Figures()).add(row)
    if not timed:
        for group in before:  # groups that have ended
            sums.setdefault((None, group if group in shown else ()), Figures())
    hidden = ({row.group for row in rows} | ({} if timed else before).keys()) - shown
    previous_sums = _sum_previous(before, shown)
    made = [
        BillRow(start, names, 0 if names in shown else len(hidden), figures, None if timed else previous_sums[names])
        for (start, names), figures in sums.items()
    ]
    return Bill(request, tuple(_sort(made, request)), _add_up(sums.values()), _add_totals(earlier))


def group_rows(result: UsageResult) -> list[GroupRow]:
    """Return the rows of a result whose query asks for groups."""
    return [_as_group_row(row) for row in result.rows]


def _as_group_row(row: UsageRow | GroupRow) -> GroupRow:
    assert isinstance(row, GroupRow), "the query asks for groups"
    return row


def rank_groups(rows: Iterable[GroupRow]) -> dict[_Names, Decimal]:
    """Return the total of each group over all intervals."""
    totals: defaultdict[_Names, Decimal] = defaultdict(lambda: _ZERO)
    for row in rows:
        totals[row.group] = EXACT.add(totals[row.group], row.total)
    return dict(totals)


def _rank(rows: Iterable[GroupRow], before: Mapping[_Names, Decimal], request: BillRequest) -> frozenset[_Names]:
    """Return the groups that have rows of their own."""
    totals = rank_groups(rows)
    names = {*totals, *(() if request.query.interval is not None else before)}

    def weigh(group: _Names) -> tuple[Decimal, list[str]]:
        now, then = totals.get(group, _ZERO), before.get(group, _ZERO)
        weight = abs(subtract(now, then)) if request.sort == "change" else now
        return -weight, ["" if name is None else name for name in group]

    return frozenset(sorted(names, key=weigh)[: request.top])


def _sum_previous(before: Mapping[_Names, Decimal], shown: frozenset[_Names]) -> Mapping[_Names, Decimal]:
    sums: defaultdict[_Names, Decimal] = defaultdict(lambda: _ZERO)
    for group, total in before.items():
        key = group if group in shown else ()
        sums[key] = EXACT.add(sums[key], total)
    return sums


def _sort(rows: list[BillRow], request: BillRequest) -> list[BillRow]:
    """Return the rows in their order: later times first, then by weight; the row of all others is the last."""

    def weigh(row: BillRow) -> tuple[bool, Decimal, list[str]]:
        weight = abs(row.change) if request.sort == "change" and row.previous is not None else row.figures.total
        return row.others > 0, -weight, ["" if name is None else name for name in row.names]

    rows.sort(key=weigh)
    if request.query.interval is not None:
        rows.sort(key=lambda row: row.start or "", reverse=True)
    return rows


def _add_up(figures: Iterable[Figures]) -> Figures:
    total = Figures()
    for part in figures:
        total = total.add(part)
    return total


def _add_totals(rows: Iterable[GroupRow]) -> Decimal:
    total = _ZERO
    for row in rows:
        total = EXACT.add(total, row.total)
    return total


def list_values(row: BillRow, groups: Sequence[str]) -> list[str | None]:
    """Return the values of a row in the order of the groups; the row of all others has its number in the first one."""
    names = iter(row.names)
    values = [row.start if is_interval(group) else next(names, None) for group in groups]
    if row.others:
        place = next(index for index, group in enumerate(groups) if not is_interval(group))
        values[place] = f"{row.others} other{'s' if row.others > 1 else ''}"
    return values
