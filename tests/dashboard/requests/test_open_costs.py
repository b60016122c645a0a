"""The days that are searched for open costs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tornado_proxy.dashboard.requests.open_costs import narrow
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import GroupRow

SPAN = UsageFilter(since="2026-03-01T06:00:00.000Z", until="2026-03-20T00:00:00.000Z")


def make_day(day: int, requests: int) -> GroupRow:
    start, end = (f"2026-03-{number:02}T00:00:00.000Z" for number in (day, day + 1))
    return GroupRow(start, end, ("unsettled",), requests, Decimal(0), Decimal(0), 0, 0)


@pytest.mark.parametrize(
    ("days", "since", "until"),
    [
        ({3: 1, 5: 2, 9: 9}, "2026-03-05", "2026-03-10"),  # 9 and 5 have ten together
        ({3: 1, 5: 200}, "2026-03-05", "2026-03-06"),
        ({1: 1, 3: 1}, "2026-03-01T06", "2026-03-04"),
        ({19: 1}, "2026-03-19", "2026-03-20"),
    ],
)
def test_last_days_with_ten_requests_are_searched(days: dict[int, int], since: str, until: str) -> None:
    which = narrow(SPAN, [make_day(day, requests) for day, requests in days.items()])

    assert str(which.since).startswith(since)
    assert str(which.until).startswith(until)
