"""Splits a time into whole days, the hours before and after them, and its edges, which are parts of hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tornado_proxy.ledger.rows import format_time

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TimePart:
    """A part of the time: `span` is hour or day; "" for the records themselves.  None is no limit."""

    span: str
    since: str | None
    until: str | None


def keep_days(parts: Iterable[TimePart]) -> Iterator[TimePart]:
    """Yield the parts with records in place of hours: attributes have sums by day only."""
    for part in parts:
        yield replace(part, span="") if part.span == "hour" else part


def split_time(since: str | None, until: str | None, *, by_hour: bool) -> Iterator[TimePart]:
    """Yield the parts of a time: days if possible, hours and records at its edges."""
    first, last = _round_up(since, _HOUR), _round_down(until, _HOUR)
    if first is not None and last is not None and first >= last:
        yield TimePart("", since, until)
        return
    if since != first:
        yield TimePart("", since, first)
    yield from [TimePart("hour", first, last)] if by_hour else _split_hours(first, last)
    if until != last:
        yield TimePart("", last, until)


def _split_hours(first: str | None, last: str | None) -> Iterator[TimePart]:
    first_day, last_day = _round_up(first, _DAY), _round_down(last, _DAY)
    if first_day is not None and last_day is not None and first_day >= last_day:
        yield TimePart("hour", first, last)
        return
    if first != first_day:
        yield TimePart("hour", first, first_day)
    yield TimePart("day", first_day, last_day)
    if last != last_day:
        yield TimePart("hour", last_day, last)


def is_exact_time(time: str) -> bool:
    """Return True if a time has the form that records have, so that text order is time order."""
    try:
        return format_time(datetime.fromisoformat(time)) == time
    except ValueError:
        return False


def _round_down(time: str | None, step: timedelta) -> str | None:
    if time is None:
        return None
    at = datetime.fromisoformat(time)
    start = at.replace(minute=0, second=0, microsecond=0)
    return format_time(start.replace(hour=0) if step == _DAY else start)


def _round_up(time: str | None, step: timedelta) -> str | None:
    below = _round_down(time, step)
    if below is None or below == time:
        return below
    return format_time(datetime.fromisoformat(below).astimezone(UTC) + step)
