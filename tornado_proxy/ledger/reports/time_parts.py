"""Splits a time into whole days, the hours before and after them, and its edges, which are parts of hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tornado_proxy.ledger.rows import format_time

_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


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
    return _split(since, until, "", ("hour",) if by_hour else ("hour", "day"))


def _split(since: str | None, until: str | None, span: str, larger: tuple[str, ...]) -> Iterator[TimePart]:
    """Yield the edges of a time with `span`, and what lies between them with the larger spans, in order of size."""
    if not larger:
        yield TimePart(span, since, until)
        return
    first, last = _round_up(since, larger[0]), _round_down(until, larger[0])
    if first is not None and last is not None and first >= last:
        yield TimePart(span, since, until)
        return
    if since != first:
        yield TimePart(span, since, first)
    yield from _split(first, last, larger[0], larger[1:])
    if until != last:
        yield TimePart(span, last, until)


def is_exact_time(time: str) -> bool:
    """Return True if a time has the form that records have, so that text order is time order."""
    try:
        return format_time(datetime.fromisoformat(time)) == time
    except ValueError:
        return False


def _round_down(time: str | None, span: str) -> str | None:
    if time is None:
        return None
    at = datetime.fromisoformat(time)
    start = at.replace(minute=0, second=0, microsecond=0)
    return format_time(start.replace(hour=0) if span == "day" else start)


def _round_up(time: str | None, span: str) -> str | None:
    below = _round_down(time, span)
    if below is None or below == time:
        return below
    return format_time(datetime.fromisoformat(below).astimezone(UTC) + _LENGTHS[span])
