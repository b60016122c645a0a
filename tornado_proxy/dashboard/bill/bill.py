"""The bill page's rows: the dearest groups, one row for all others.

The groups that are no times are ranked over the whole span.  The first of them get rows of their own, one for each
interval if the bill is grouped by time; the others are added up to one row, in each interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.dashboard.amounts import subtract
from tornado_proxy.dashboard.bill.bill_request import BillRequest, is_interval
from tornado_proxy.ledger.reports.ranking import Names, RankedUsage, Ranking, add_rows
from tornado_proxy.ledger.reports.usage import GroupRow

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class BillRow:
    """A row of the bill.

    Attributes:
        names: Its values in the groups that are no times; () for the row of all others.
        others: The number of groups that are added up in it, 0 for a row of one group.
        figures: Its interval and its sums.
        previous: The total in the compared span; None in a bill that is grouped by time.
    """

    names: Names
    others: int
    figures: GroupRow
    previous: Decimal | None

    @property
    def start(self) -> str | None:
        """The start of its interval, RFC 3339 UTC text; None if the bill is not grouped by time."""
        return self.figures.start

    @property
    def change(self) -> Decimal:
        """The total minus that of the compared span."""
        return subtract(self.figures.total, self.previous or _ZERO)


@dataclass(frozen=True, slots=True)
class Bill:
    """The rows of a bill, the sum of the span, and the total of the compared span.

    Attributes:
        older: The parameter `before` of the page with earlier intervals; None if there are none.
    """

    request: BillRequest
    rows: tuple[BillRow, ...]
    figures: GroupRow
    previous: Decimal
    older: str | None = None

    @property
    def change(self) -> Decimal:
        """The total minus that of the compared span."""
        return subtract(self.figures.total, self.previous)

    @property
    def is_timed(self) -> bool:
        """True if the bill is grouped by time."""
        return self.request.query.interval is not None


def make_bill(usage: RankedUsage, request: BillRequest) -> Bill:
    """Return the bill of the answer to its query."""
    ranking = usage.ranking
    total = add_rows((each.row for each in ranking.sums), ())
    rows = _make_timed_rows(usage) if request.query.interval is not None else _make_rows(ranking)
    return Bill(request, tuple(rows), total, usage.previous, usage.older)


def _make_rows(ranking: Ranking) -> list[BillRow]:
    rows = [BillRow(each.row.group, 0, each.row, each.previous) for each in ranking.groups]
    if ranking.others is not None:
        rows.append(BillRow((), ranking.hidden, ranking.others.row, ranking.others.previous))
    return rows


def _make_timed_rows(usage: RankedUsage) -> list[BillRow]:
    names, hidden = usage.ranking.names, usage.ranking.hidden
    return [BillRow(row.group, 0 if row.group in names else hidden, row, None) for row in usage.rows]


def list_values(row: BillRow, groups: Sequence[str]) -> list[str | None]:
    """Return the values of a row in the order of the groups; the row of all others has its number in the first one."""
    names = iter(row.names)
    values = [row.start if is_interval(group) else next(names, None) for group in groups]
    if row.others:
        place = next(index for index, group in enumerate(groups) if not is_interval(group))
        values[place] = f"{row.others} other{'s' if row.others > 1 else ''}"
    return values
