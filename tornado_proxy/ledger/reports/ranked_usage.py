"""Answers a RankedQuery: the dearest groups of a time, and their rows by interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.reports.ranked_sums import can_rank, rank_sums
from tornado_proxy.ledger.reports.ranking import (
    IntervalPage,
    RankedQuery,
    RankedUsage,
    Ranking,
    add_previous,
    add_rows,
    choose_intervals,
    fold_rows,
    rank_rows,
    rank_usage,
)
from tornado_proxy.ledger.reports.record_sums import can_use_sums
from tornado_proxy.ledger.reports.usage import GroupRow, UsageQuery, UsageResult

#: Returns the result of a query, from the sums or from the records.
Sum = Callable[[UsageQuery], UsageResult]


def read_ranked(read: Read, dialect: Dialect, query: RankedQuery, sum_usage: Sum) -> RankedUsage:
    """Return the usage that a query asks for; `read` and `sum_usage` must be of one snapshot.

    Raises:
        BadRequest: it takes too long.
    """
    if not can_use_sums(query.query):
        rows = list_group_rows(sum_usage(query.query))  # each record is read, so they are read once
        return rank_usage(rows, _sum_previous(query, sum_usage), query)
    ranking = _rank(read, dialect, query, sum_usage)
    if query.query.interval is None:
        return RankedUsage(ranking, add_previous(ranking.sums))
    starts = list_group_rows(sum_usage(replace(query.query, group_by=())))
    page = choose_intervals((row.start for row in starts), len(ranking.sums), query)
    rows = list_group_rows(sum_usage(_narrow(query.query, ranking, page))) if page.starts else []
    previous = add_rows(_sum_previous(query, sum_usage), ()).total
    return RankedUsage(ranking, previous, fold_rows(rows, ranking.names, page), page.older)


def _sum_previous(query: RankedQuery, sum_usage: Sum) -> list[GroupRow]:
    """Return the rows of the time that is compared; one for all groups if the query has an interval."""
    groups = query.query.group_by if query.query.interval is None else ()
    return list_group_rows(sum_usage(replace(query.query, which=query.previous, interval=None, group_by=groups)))


def list_group_rows(result: UsageResult) -> list[GroupRow]:
    """Return the rows of a result whose query asks for groups."""
    return [_as_group_row(row) for row in result.rows]


def _as_group_row(row: object) -> GroupRow:
    assert isinstance(row, GroupRow), "the query asks for groups"
    return row


def _rank(read: Read, dialect: Dialect, query: RankedQuery, sum_usage: Sum) -> Ranking:
    if can_rank(read, query):
        return rank_sums(read, dialect, query)
    rows = list_group_rows(sum_usage(replace(query.query, interval=None)))
    return rank_rows(rows, _sum_previous(query, sum_usage) if query.query.interval is None else (), query)


def _narrow(query: UsageQuery, ranking: Ranking, page: IntervalPage) -> UsageQuery:
    """Return the query of the rows of some intervals, whose latest one is the first."""
    ends = [end for end in (query.which.until, page.end) if end is not None]
    since = max(page.starts[-1], query.which.since or "")
    told_apart = tuple(name for group in ranking.names for name in group if name is not None)
    which = replace(query.which, since=since, until=min(ends, default=None))
    return replace(query, which=which, told_apart=told_apart if len(query.group_by) == 1 else None)
