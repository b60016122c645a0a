"""Times and amounts as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from tornado_proxy.domain.text import format_decimal, format_sum, format_time


@pytest.mark.parametrize(
    ("time", "text"),
    [
        pytest.param(datetime(2026, 3, 2, 1, 2, 3, 4999, UTC), "2026-03-02T01:02:03.004Z", id="milliseconds, cut"),
        pytest.param(
            datetime(2026, 3, 2, 1, 0, tzinfo=timezone(timedelta(hours=2))),
            "2026-03-01T23:00:00.000Z",
            id="converted to UTC",
        ),
        pytest.param(datetime(2026, 3, 2, 1, 2, 3, 500_000, UTC), "2026-03-02T01:02:03.500Z", id="half a second"),
        pytest.param(datetime(999, 3, 2, tzinfo=UTC), "0999-03-02T00:00:00.000Z", id="four digits of the year"),
    ],
)
def test_time_is_rfc_3339_in_utc_with_milliseconds(time: datetime, text: str) -> None:
    assert format_time(time) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("1E-12", "0.000000000001"), ("0E-12", "0.000000000000"), ("1E+3", "1000"), ("0.10", "0.10"), ("-2", "-2")],
)
def test_decimal_has_no_exponent(value: str, text: str) -> None:
    assert format_decimal(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.000000150000", "0.00000015"),
        ("0E-12", "0"),
        ("10.00", "10"),
        ("1E+3", "1000"),
        ("-0.50", "-0.5"),
        ("7", "7"),
    ],
)
def test_sum_has_no_zeros_at_its_end(value: str, text: str) -> None:
    assert format_sum(Decimal(value)) == text
