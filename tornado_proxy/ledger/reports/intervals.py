"""Spans of time that usage is summed in: hours, days, weeks and months of UTC, by the text of a record's time."""

from __future__ import annotations

import calendar
import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Interval(StrEnum):
    """Spans of time, UTC, that rows are summed in; a week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


#: How much of an RFC 3339 time names its interval, and what makes it a time again.
_CUT: Mapping[Interval, tuple[int, str]] = {
    Interval.HOUR: (13, ":00:00.000Z"),
    Interval.DAY: (10, "T00:00:00.000Z"),
    Interval.MONTH: (7, "-01T00:00:00.000Z"),
}


def interval_start(interval: Interval | None, moment: str) -> str | None:
    """The start of the interval that a moment (RFC 3339 UTC text) lies in; None without intervals."""
    if interval is None:
        return None
    if interval is Interval.WEEK:
        return _monday(moment[:10])
    length, rest = _CUT[interval]
    return moment[:length] + rest


@functools.lru_cache(maxsize=1024)
def _monday(day: str) -> str:
    date = datetime.fromisoformat(day).date()
    return f"{date - timedelta(days=date.weekday())}T00:00:00.000Z"


def interval_end(interval: Interval | None, start: str | None) -> str | None:
    """The start of the interval after the one that begins at `start`."""
    if interval is None or start is None:
        return None
    begin = datetime.fromisoformat(start).astimezone(UTC)
    days = calendar.monthrange(begin.year, begin.month)[1]
    spans = {
        Interval.HOUR: timedelta(hours=1),
        Interval.DAY: timedelta(days=1),
        Interval.WEEK: timedelta(weeks=1),
        Interval.MONTH: timedelta(days=days),
    }
    return (begin + spans[interval]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
