"""The periods of budgets, in UTC."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta

from tornado_proxy.domain.budgets.counter import CounterKind, Interval, Period

#: The start of the total of a budget that names no start.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MONTHS = {Period.MONTH: 1, Period.QUARTER: 3}


def find_interval(period: Period, start: date | None, at: datetime) -> Interval:
    """Return the period that contains `at`.

    Args:
        period: The length of the period.
        start: A day on which a period begins.  A month that has no such day begins on its last one.
        at: Aware UTC.
    """
    match period:
        case Period.HOUR:
            begin = at.replace(minute=0, second=0, microsecond=0)
            return Interval(begin, begin + timedelta(hours=1))
        case Period.DAY:
            begin = _midnight(at.date())
            return Interval(begin, begin + timedelta(days=1))
        case Period.WEEK:
            first_weekday = 0 if start is None else start.weekday()
            begin = _midnight(at.date() - timedelta(days=(at.weekday() - first_weekday) % 7))
            return Interval(begin, begin + timedelta(days=7))
        case Period.TOTAL:
            return Interval(_EPOCH if start is None else _midnight(start), None)
        case Period.MONTH | Period.QUARTER:
            return _find_months(_MONTHS[period], start or date(1970, 1, 1), at.date())


def has_begun(kind: CounterKind, at: datetime) -> bool:
    """Return False if `kind` is a total that counts from a later day than that of `at`."""
    return kind.start is None or kind.period is not Period.TOTAL or kind.start <= at.date()


def _find_months(length: int, start: date, day: date) -> Interval:
    """Return the interval of `length` months that contains `day`; one begins on `start`."""
    months = (day.year - start.year) * 12 + day.month - start.month
    months -= months % length
    if _add_months(start, months) > day:
        months -= length
    return Interval(_midnight(_add_months(start, months)), _midnight(_add_months(start, months + length)))


def _add_months(start: date, months: int) -> date:
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    return date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
