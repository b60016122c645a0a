"""The periods of budgets."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.domain.budgets.counter import Period

HOUR, DAY, WEEK, MONTH, QUARTER, TOTAL = Period


def at(text: str) -> datetime:
    """Return a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "start", "moment", "begin", "end"),
    [
        (HOUR, None, "2026-11-28T12:34:56.789", "2026-11-28T12:00", "2026-11-28T13:00"),
        (HOUR, None, "2026-12-31T23:59:59.999", "2026-12-31T23:00", "2027-01-01T00:00"),
        (DAY, None, "2026-11-28T00:00", "2026-11-28T00:00", "2026-11-29T00:00"),
        # 2026-11-28 is a Saturday.
        (WEEK, None, "2026-11-28T12:00", "2026-11-23T00:00", "2026-11-30T00:00"),
        (WEEK, date(2026, 1, 4), "2026-11-28T12:00", "2026-11-22T00:00", "2026-11-29T00:00"),
        (WEEK, date(2026, 1, 3), "2026-11-28T12:00", "2026-11-28T00:00", "2026-12-05T00:00"),
        (MONTH, None, "2026-11-28T12:00", "2026-11-01T00:00", "2026-12-01T00:00"),
        (MONTH, date(2026, 1, 15), "2026-11-28T12:00", "2026-11-15T00:00", "2026-12-15T00:00"),
        (MONTH, date(2026, 1, 15), "2026-11-14T12:00", "2026-10-15T00:00", "2026-11-15T00:00"),
        (MONTH, date(2026, 1, 31), "2026-02-28T00:00", "2026-02-28T00:00", "2026-03-31T00:00"),
        (MONTH, date(2026, 1, 31), "2028-02-28T23:59", "2028-01-31T00:00", "2028-02-29T00:00"),
        (MONTH, date(2027, 6, 10), "2026-11-28T12:00", "2026-11-10T00:00", "2026-12-10T00:00"),
        (QUARTER, None, "2026-11-28T12:00", "2026-10-01T00:00", "2027-01-01T00:00"),
        (QUARTER, date(2026, 2, 1), "2026-11-28T12:00", "2026-11-01T00:00", "2027-02-01T00:00"),
        (QUARTER, date(2026, 2, 20), "2026-11-19T12:00", "2026-08-20T00:00", "2026-11-20T00:00"),
        (TOTAL, date(2026, 5, 1), "2026-11-28T12:00", "2026-05-01T00:00", None),
        (TOTAL, None, "2026-11-28T12:00", "1970-01-01T00:00", None),
    ],
)
def test_period_contains_the_time(period: Period, start: date | None, moment: str, begin: str, end: str | None) -> None:
    interval = find_interval(period, start, at(moment))

    assert (interval.begin, interval.end) == (at(begin), None if end is None else at(end))
