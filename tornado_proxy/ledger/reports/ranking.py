"""The dearest groups of usage, and the sum of all others: the query, its result, and the ranking of rows.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tornado_proxy.ledger.reports.intervals import find_interval_end
from tornado_proxy.ledger.reports.records_query import EXACT, UsageFilter
from tornado_proxy.ledger.reports.usage import GroupRow, UsageQuery

ZERO = Decimal(0)

#: The values of a group.
Names = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class RankedQuery:
    """Asks for the dearest groups of a time.

    query: a query with group_rows.  With an interval, groups are ranked over all intervals, and have a row in each.
    previous: selects the requests of the time that is compared.
    top: the number of groups that are told apart.
    by_change: True ranks groups by the change of their totals; only without an interval.
    max_rows: the most rows by interval; fewer if another interval would exceed it.
    before: the start of an interval; only earlier intervals have rows.
    """

    query: UsageQuery
    previous: UsageFilter
    top: int
    by_change: bool = False
    max_rows: int = 500
    before: str | None = None

    @property
    def asker(self) -> str:
        """The caller who asks."""
        return self.query.asker


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """The sum of a group, and its total in the time that is compared."""

    row: GroupRow
    previous: Decimal


@dataclass(frozen=True, slots=True)
class Ranking:
    """The dearest groups in their order, and the sum of all others.

    others: None if there are none; its group is ().
    hidden: the number of other groups.
    hidden_now: the number of those that have requests in the time itself.
    """

    groups: tuple[RankedGroup, ...] = ()
    others: RankedGroup | None = None
    hidden: int = 0
    hidden_now: int = 0

    @property
    def names(self) -> frozenset[Names]:
        """The groups that are told apart."""
        return frozenset(each.row.group for each in self.groups)

    @property
    def sums(self) -> tuple[RankedGroup, ...]:
        """The sums of the groups and of all others."""
        return self.groups if self.others is None else (*self.groups, self.others)


@dataclass(frozen=True, slots=True)
class RankedUsage:
    """The answer to a RankedQuery.

    ranking: the groups over the whole time; without an interval, with their totals in the time that is compared.
    rows: the rows by interval, see fold_rows(); () without an interval.
    older: `before` of the query for earlier intervals; None if `rows` has the earliest.
    previous: the total of the time that is compared.
    """

    ranking: Ranking
    previous: Decimal
    rows: tuple[GroupRow, ...] = ()
    older: str | None = None


def add_rows(rows: Iterable[GroupRow], group: Names, start: str | None = None, end: str | None = None) -> GroupRow:
    """Return the sum of rows, as the row of a group."""
    requests = unsettled = pending = 0
    subtotal = surcharge = ZERO
    for row in rows:
        requests += row.requests
        unsettled += row.unsettled
        pending += row.pending
        subtotal, surcharge = EXACT.add(subtotal, row.subtotal), EXACT.add(surcharge, row.surcharge)
    return GroupRow(start, end, group, requests, subtotal, surcharge, unsettled, pending)


def rank_rows(current: Iterable[GroupRow], previous: Iterable[GroupRow], query: RankedQuery) -> Ranking:
    """Return the ranking of the groups of rows, each of which may have several."""
    now, before = _sum_by_group(current), _sum_by_group(previous)
    groups = [_compare(group, now, before) for group in {**now, **before}]
    groups.sort(key=lambda each: _weigh(each, by_change=query.by_change))
    hidden = groups[query.top :]
    others = None
    if hidden:
        others = RankedGroup(add_rows((each.row for each in hidden), ()), add_previous(hidden))
    return Ranking(tuple(groups[: query.top]), others, len(hidden), sum(each.row.requests > 0 for each in hidden))


def _sum_by_group(rows: Iterable[GroupRow]) -> Mapping[Names, GroupRow]:
    found: dict[Names, list[GroupRow]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return {group: add_rows(some, group) for group, some in found.items()}


def _compare(group: Names, now: Mapping[Names, GroupRow], before: Mapping[Names, GroupRow]) -> RankedGroup:
    row = now.get(group) or add_rows((), group)
    return RankedGroup(row, before[group].total if group in before else ZERO)


def _weigh(each: RankedGroup, *, by_change: bool) -> tuple[Decimal, list[str]]:
    total = each.row.total
    weight = abs(EXACT.subtract(total, each.previous)) if by_change else total
    return -weight, ["" if name is None else name for name in each.row.group]


def add_previous(groups: Iterable[RankedGroup]) -> Decimal:
    """Return the sum of the totals in the time that is compared."""
    total = ZERO
    for each in groups:
        total = EXACT.add(total, each.previous)
    return total


@dataclass(frozen=True, slots=True)
class IntervalPage:
    """The intervals that have rows.

    starts: their starts, the latest first.
    end: the end of the latest one; None if there are none.
    older: see RankedUsage.
    """

    starts: tuple[str, ...]
    end: str | None
    older: str | None


def choose_intervals(starts: Iterable[str | None], rows_each: int, query: RankedQuery) -> IntervalPage:
    """Return the latest intervals before `query.before` whose rows are not more than `query.max_rows`; at least one.

    Args:
        starts: the starts of the intervals that have requests.
        rows_each: the most rows of an interval.
        query: the query.
    """
    earlier = {start for start in starts if start is not None and (query.before is None or start < query.before)}
    ordered = sorted(earlier, reverse=True)
    number = max(1, query.max_rows // max(1, rows_each))
    end = find_interval_end(query.query.interval, ordered[0]) if ordered else None
    return IntervalPage(tuple(ordered[:number]), end, ordered[number - 1] if len(ordered) > number else None)


def fold_rows(rows: Sequence[GroupRow], names: frozenset[Names], page: IntervalPage) -> tuple[GroupRow, ...]:
    """Return the rows of the intervals of a page, the latest first: those of the named groups, the dearest first.

    The last row of an interval is the sum of all other groups.
    """
    found: dict[tuple[str, Names], list[GroupRow]] = {}
    for row in rows:
        if row.start is not None and row.start in page.starts:
            found.setdefault((row.start, row.group if row.group in names else ()), []).append(row)
    made = [add_rows(some, group, start, some[0].end) for (start, group), some in found.items()]
    made.sort(key=lambda row: (row.group not in names, *_weigh(RankedGroup(row, ZERO), by_change=False)))
    return tuple(sorted(made, key=lambda row: row.start or "", reverse=True))


def rank_usage(current: Sequence[GroupRow], previous: Sequence[GroupRow], query: RankedQuery) -> RankedUsage:
    """Return the answer to a query from the rows of all groups, in the time itself and in the one that is compared."""
    if query.query.interval is None:
        ranking = rank_rows(current, previous, query)
        return RankedUsage(ranking, add_previous(ranking.sums))
    ranking = rank_rows(current, (), query)
    page = choose_intervals((row.start for row in current), len(ranking.sums), query)
    return RankedUsage(ranking, add_rows(previous, ()).total, fold_rows(current, ranking.names, page), page.older)
