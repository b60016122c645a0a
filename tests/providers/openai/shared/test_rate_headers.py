"""The headers in which OpenAI states limits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateState, RateUnit
from tornado_proxy.providers.openai.shared.rate_headers import make_rate_headers

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


def state(unit: RateUnit, limit: int, remaining: int, reset_s: float) -> RateState:
    """Return the state of a limit."""
    return RateState(RateClaim("project", "", unit, limit, 1), remaining, 1.0, reset_s)


def test_first_limit_of_each_unit_is_stated() -> None:
    states = (
        state(RateUnit.REQUESTS, 600, 0, 59),
        state(RateUnit.STREAMS, 3, 0, 0),
        state(RateUnit.TOKENS, 9000, 70, 0.12),
        state(RateUnit.REQUESTS, 5, 5, 0),
    )
    assert dict(make_rate_headers(states, NOW)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "59s",
        "x-ratelimit-limit-tokens": "9000",
        "x-ratelimit-remaining-tokens": "70",
        "x-ratelimit-reset-tokens": "120ms",
    }


@pytest.mark.parametrize(
    ("reset_s", "text"), [(0.0, "0ms"), (0.9995, "1000ms"), (1.2, "2s"), (59.5, "1m0s"), (60, "1m0s")]
)
def test_reset_is_a_duration(reset_s: float, text: str) -> None:
    headers = dict(make_rate_headers((state(RateUnit.REQUESTS, 600, 0, reset_s),), NOW))
    assert headers["x-ratelimit-reset-requests"] == text
