"""The spans of time that reports show, and those that they are compared with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tornado_proxy.dashboard.time_span import read_span, show_time

#: A Saturday, 35 seconds after half past ten.
NOW = datetime(2026, 3, 14, 10, 30, 35, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "since", "until", "previous_since", "previous_until"),
    [
        ({"range": "today"}, "2026-03-14", "2026-03-15", "2026-03-13", "2026-03-13T10:30Z"),
        ({"range": "yesterday"}, "2026-03-13", "2026-03-14", "2026-03-12", "2026-03-13"),
        ({}, "2026-03-08", "2026-03-15", "2026-03-01", "2026-03-07T10:30Z"),
        ({"range": "30d"}, "2026-02-13", "2026-03-15", "2026-01-14", "2026-02-12T10:30Z"),
        ({"range": "month"}, "2026-03-01", "2026-04-01", "2026-02-01", "2026-02-14T10:30Z"),
        ({"range": "last-month"}, "2026-02-01", "2026-03-01", "2026-01-01", "2026-01-29"),
        ({"start": "2026-03-01", "end": "2026-03-03"}, "2026-03-01", "2026-03-03", "2026-02-27", "2026-03-01"),
        ({"start": "2026-03-14"}, "2026-03-14", "2026-03-14T10:31Z", "2026-03-13T13:29Z", "2026-03-13T23:59Z"),
        (
            {"start": "2026-03-01T12:00:00+02:00", "end": "2026-03-01T11:00:00Z", "range": "today"},
            *("2026-03-01T10:00Z", "2026-03-01T11:00Z", "2026-03-01T09:00Z", "2026-03-01T10:00Z"),
        ),
        ({"start": "2027-01-01", "end": "2027-01-02"}, "2027-01-01", "2027-01-02", "2026-12-31", "2026-12-31"),
    ],
)
def test_span_is_compared_with_as_much_of_the_time_before(
    given: dict[str, str], since: str, until: str, previous_since: str, previous_until: str
) -> None:
    span = read_span(given, NOW)

    shown = [show_time(time) for time in (span.since, span.until, span.previous_since, span.previous_until)]
    assert shown == [since, until, previous_since, previous_until]


@pytest.mark.parametrize("given", [{"range": "today"}, {"start": "2026-03-01", "end": "2026-03-01T10:00:00.5Z"}])
def test_parameters_of_a_span_state_the_same_span(given: dict[str, str]) -> None:
    span = read_span(given, NOW)

    assert read_span(span.parameters, NOW) == span


def test_month_before_march_ends_with_it_also_late_in_march() -> None:
    late = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)

    assert show_time(read_span({"range": "month"}, late).previous_until) == "2026-03-01"
