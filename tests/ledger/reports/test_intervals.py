"""Intervals of UTC time, by hand from a calendar."""

from __future__ import annotations

import pytest

from tornado_proxy.ledger.reports.intervals import Interval, find_interval_end, find_interval_start


@pytest.mark.parametrize(
    ("interval", "time", "start", "end"),
    [
        (Interval.HOUR, "2026-03-01T23:59:59.999Z", "2026-03-01T23:00:00.000Z", "2026-03-02T00:00:00.000Z"),
        (Interval.DAY, "2026-12-31T23:59:59.999Z", "2026-12-31T00:00:00.000Z", "2027-01-01T00:00:00.000Z"),
        # 1 March 2026 is a Sunday.
        (Interval.WEEK, "2026-03-01T10:00:00.000Z", "2026-02-23T00:00:00.000Z", "2026-03-02T00:00:00.000Z"),
        (Interval.WEEK, "2026-03-02T00:00:00.000Z", "2026-03-02T00:00:00.000Z", "2026-03-09T00:00:00.000Z"),
        (Interval.MONTH, "2028-02-29T10:00:00.000Z", "2028-02-01T00:00:00.000Z", "2028-03-01T00:00:00.000Z"),
        (Interval.MONTH, "2026-12-31T10:00:00.000Z", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"),
        (None, "2026-12-31T10:00:00.000Z", None, None),
    ],
)
def test_interval_contains_its_start_and_not_its_end(
    interval: Interval | None, time: str, start: str | None, end: str | None
) -> None:
    assert find_interval_start(interval, time) == start
    assert find_interval_end(interval, start) == end
