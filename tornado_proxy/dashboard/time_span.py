"""The time of a report, and the time before it that it is compared with.  All days are UTC days.

A span that has not ended is compared with as much of the time before it as has passed, so that at noon the costs of
today are compared with those of yesterday until noon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tornado_proxy.api.usage_query import read_time
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.ledger.rows import format_time

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Two spans of time, aware UTC; the ends are exclusive.

    Attributes:
        name: The name of RANGES, None for one that the URL states by its start and end.
        until: The end, which can be in the future.
        previous_until: The end of the compared span: as long after its start as `until`, or now, is after `since`.
    """

    name: str | None
    since: datetime
    until: datetime
    previous_since: datetime
    previous_until: datetime

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of a URL that state this span."""
        if self.name is not None:
            return {"range": self.name}
        return {"start": show_time(self.since), "end": show_time(self.until)}

    @property
    def length(self) -> timedelta:
        """The length of the whole span."""
        return self.until - self.since


def _find_month(day: datetime, offset: int) -> datetime:
    """Return the first day of a month, counted from that of `day`."""
    months = day.year * 12 + day.month - 1 + offset
    return day.replace(year=months // 12, month=months % 12 + 1, day=1)


#: Each named range: from the first moment of today, its start, its end, and the start of the compared span.
RANGES: Mapping[str, Callable[[datetime], tuple[datetime, datetime, datetime]]] = {
    "today": lambda day: (day, day + _DAY, day - _DAY),
    "yesterday": lambda day: (day - _DAY, day, day - 2 * _DAY),
    "7d": lambda day: (day - 6 * _DAY, day + _DAY, day - 13 * _DAY),
    "30d": lambda day: (day - 29 * _DAY, day + _DAY, day - 59 * _DAY),
    "month": lambda day: (_find_month(day, 0), _find_month(day, 1), _find_month(day, -1)),
    "last-month": lambda day: (_find_month(day, -1), _find_month(day, 0), _find_month(day, -2)),
}

DEFAULT_RANGE = "7d"

#: The titles of the ranges on pages.
RANGE_TITLES: Mapping[str, str] = {
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last-month": "Last month",
}


def read_span(given: Mapping[str, str], now: datetime) -> TimeSpan:
    """Return the span of a URL: `start` and `end`, else `range`.

    Args:
        given: The parameters.
        now: The present, aware UTC.

    Raises:
        BadRequest: a parameter is malformed, or the span has no length.
    """
    start, end = read_time("start", given.get("start")), read_time("end", given.get("end"))
    if start is None and end is not None:
        raise BadRequest("end needs a start; state both", param="start")
    if start is not None:
        until = end or now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        if start >= until:
            raise BadRequest("start must be before end", param="start")
        if start - datetime.min.replace(tzinfo=UTC) < until - start:
            raise BadRequest("start is too early; choose a later one", param="start")
        return _compare(None, (start, until, start - (until - start)), now)
    name = given.get("range", DEFAULT_RANGE)
    if name not in RANGES:
        raise BadRequest(f"range must be one of {', '.join(RANGES)}", param="range")
    return _compare(name, RANGES[name](now.replace(hour=0, minute=0, second=0, microsecond=0)), now)


def _compare(name: str | None, bounds: tuple[datetime, datetime, datetime], now: datetime) -> TimeSpan:
    since, until, previous = bounds
    passed = min(until, max(since, now.replace(second=0, microsecond=0))) - since
    return TimeSpan(name, since, until, previous, min(since, previous + passed))


def show_time(time: datetime) -> str:
    """Return a time as the shortest text that read_span() reads: a day, or a time to the minute or millisecond."""
    text = format_time(time)
    if text.endswith("T00:00:00.000Z"):
        return text[:10]
    return f"{text[:16]}Z" if text.endswith(":00.000Z") else text
