"""The time chart of the bill: the cost of the dearest groups in each interval of the span.  Pure.

The figures are exact text; only the script that draws them makes numbers of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tornado_proxy.dashboard.amounts import count_decimals, show_amount, show_exact
from tornado_proxy.dashboard.bill.bill_request import BillRequest, is_interval
from tornado_proxy.ledger.reports.intervals import Interval, find_interval_end, find_interval_start
from tornado_proxy.ledger.reports.ranked_usage import list_group_rows
from tornado_proxy.ledger.reports.ranking import RankedQuery, Ranking
from tornado_proxy.ledger.reports.records_query import EXACT
from tornado_proxy.ledger.reports.usage import UsageQuery, UsageResult
from tornado_proxy.ledger.rows import format_time

#: Groups with a series of their own.
MAX_SERIES = 5

#: The longest spans of a chart by hour and by day; longer ones are shown by month.
_HOURLY, _DAILY = timedelta(days=3), timedelta(days=400)

#: Points of a chart; a longer one is not drawn.
MAX_POINTS = 450

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Series:
    """The amounts of one group, one for each interval."""

    name: str
    amounts: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: the starts of its intervals, RFC 3339 UTC text, and its series, the dearest first."""

    interval: Interval
    starts: tuple[str, ...]
    series: tuple[Series, ...]

    @property
    def document(self) -> str:
        """The JSON text that the script draws: times in seconds, exact amounts as text."""
        return json.dumps(
            {
                "interval": self.interval.value,
                "times": [int(datetime.fromisoformat(start).timestamp()) for start in self.starts],
                "series": [
                    {"name": each.name, "amounts": [show_exact(amount) for amount in each.amounts]}
                    for each in self.series
                ],
            }
        )

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The rows of the data table: the interval, and the amount of each series."""
        decimals = count_decimals(amount for each in self.series for amount in each.amounts)
        columns = zip(*(each.amounts for each in self.series), strict=True)
        return [
            (_show_start(start, self.interval), [show_amount(amount, decimals) for amount in amounts])
            for start, amounts in zip(self.starts, columns, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class ChosenSeries:
    """The groups that have series of their own, the dearest first, and the number of all others."""

    groups: tuple[tuple[str | None, ...], ...]
    others: int


def make_series_query(request: BillRequest) -> RankedQuery | None:
    """Return the query of the groups of the chart; None if they are the first ones of the bill itself."""
    groups = _find_groups(request)
    is_same = groups == request.query.group_by and request.sort == "total" and request.top >= MAX_SERIES
    query = replace(request.query, group_by=groups, interval=None)
    # Nothing is compared: an empty time.
    previous = replace(query.which, since=query.which.since, until=query.which.since)
    return None if is_same else RankedQuery(query, previous, MAX_SERIES)


def choose_series(ranking: Ranking) -> ChosenSeries:
    """Return the dearest groups of a ranking that have requests."""
    groups = [each.row.group for each in ranking.groups if each.row.requests]
    return ChosenSeries(tuple(groups[:MAX_SERIES]), max(0, len(groups) - MAX_SERIES) + ranking.hidden_now)


def make_chart_query(request: BillRequest, chosen: ChosenSeries) -> UsageQuery:
    """Return the query of the chart of a bill: the amounts of the chosen groups and of all others."""
    names = tuple(name for group in chosen.groups for name in group if name is not None)
    return replace(request.query, interval=_choose_interval(request), group_by=_find_groups(request), told_apart=names)


def _choose_interval(request: BillRequest) -> Interval:
    length = request.span.length
    return Interval.HOUR if length <= _HOURLY else Interval.DAY if length <= _DAILY else Interval.MONTH


def _find_groups(request: BillRequest) -> tuple[str, ...]:
    return tuple(group for group in request.groups if not is_interval(group))[:1]


def make_chart(
    result: UsageResult,
    request: BillRequest,
    now: datetime,
    chosen: ChosenSeries,
    names: Mapping[str, str] | None = None,
) -> Chart | None:
    """Return the chart of the result of make_chart_query(); None if nothing was spent, or it has too many points.

    Args:
        result: The result.
        request: The bill.
        now: The present, aware UTC: intervals in the future are left out.
        chosen: The groups of the query.
        names: Names that are shown for values, such as those of projects.
    """
    interval = _choose_interval(request)
    starts = tuple(_list_starts(interval, request, now))
    rows = list_group_rows(result)
    if not rows or not 1 < len(starts) <= MAX_POINTS:
        return None
    amounts: defaultdict[tuple[str | None, ...] | None, defaultdict[str | None, Decimal]]
    amounts = defaultdict(lambda: defaultdict(lambda: _ZERO))
    for row in rows:
        of_group = amounts[row.group if row.group in chosen.groups else None]
        of_group[row.start] = EXACT.add(of_group[row.start], row.total)
    series = [_make_series(_show_group(group, names or {}), amounts[group], starts) for group in chosen.groups]
    if chosen.others:
        title = f"{chosen.others} other{'s' if chosen.others > 1 else ''}"
        series.append(_make_series(title, amounts[None], starts))
    return Chart(interval, starts, tuple(series))


def _make_series(name: str, amounts: Mapping[str | None, Decimal], starts: tuple[str, ...]) -> Series:
    return Series(name, tuple(amounts.get(start, _ZERO) for start in starts))


def _show_group(group: tuple[str | None, ...], names: Mapping[str, str]) -> str:
    if not group:
        return "total"
    return "(none)" if group[0] is None else names.get(group[0], group[0])


def _list_starts(interval: Interval, request: BillRequest, now: datetime) -> Iterator[str]:
    """Yield the starts of the intervals of the span up to now, at most one more than MAX_POINTS."""
    end = format_time(min(request.span.until, max(now, request.span.since + timedelta(milliseconds=1))))
    start = find_interval_start(interval, format_time(request.span.since.astimezone(UTC)))
    for _ in range(MAX_POINTS + 1):
        if start is None or start >= end:
            return
        yield start
        start = find_interval_end(interval, start)


def _show_start(start: str, interval: Interval) -> str:
    return f"{start[:10]} {start[11:16]}" if interval is Interval.HOUR else start[:10]
