"""Intervals of UTC time that usage is summed by, computed on the text of a record's time."""

from __future__ import annotations

import calendar
import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from tornado_proxy.ledger.rows import format_time


class Interval(StrEnum):
    """The lengths of an interval; a week begins on Monday, as in ISO 8601."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


#: The characters of an RFC 3339 time that name its interval, and the text that completes them to the interval's start.
_PREFIXES: Mapping[Interval, tuple[int, str]] = {
    Interval.HOUR: (13, ":00:00.000Z"),
    Interval.DAY: (10, "T00:00:00.000Z"),
    Interval.MONTH: (7, "-01T00:00:00.000Z"),
}


def find_interval_start(interval: Interval | None, time: str) -> str | None:
    """Return the start of the interval that contains a time (RFC 3339 UTC text); None without an interval."""
    if interval is None:
        return None
    # Slices of text and not datetime: this runs for each record of a query, up to a million times.
    if interval is Interval.WEEK:
        return _find_monday(time[:10])
    length, suffix = _PREFIXES[interval]
    return time[:length] + suffix


@functools.lru_cache(maxsize=1024)
def _find_monday(day: str) -> str:
    date = datetime.fromisoformat(day).date()
    return f"{date - timedelta(days=date.weekday())}T00:00:00.000Z"


def find_interval_end(interval: Interval | None, start: str | None) -> str | None:
    """Return the start of the interval that follows the one of `start`; None without an interval."""
    if interval is None or start is None:
        return None
    begin = datetime.fromisoformat(start).astimezone(UTC)
    days = calendar.monthrange(begin.year, begin.month)[1]
    lengths = {
        Interval.HOUR: timedelta(hours=1),
        Interval.DAY: timedelta(days=1),
        Interval.WEEK: timedelta(weeks=1),
        Interval.MONTH: timedelta(days=days),
    }
    return format_time(begin + lengths[interval])
