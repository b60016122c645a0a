"""The headers in which Anthropic states limits."""

from __future__ import annotations

from datetime import UTC, datetime

from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateState, RateUnit
from tornado_proxy.providers.anthropic.rate_headers import make_rate_headers

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


def state(unit: RateUnit, limit: int, remaining: int, reset_s: float) -> RateState:
    """Return the state of a limit."""
    return RateState(RateClaim("project", "", unit, limit, 1), remaining, 1.0, reset_s)


def test_first_limit_of_each_unit_is_stated() -> None:
    states = (
        state(RateUnit.REQUESTS, 600, 0, 59),
        state(RateUnit.STREAMS, 3, 0, 0),
        state(RateUnit.TOKENS, 9000, 70, 2),
        state(RateUnit.REQUESTS, 5, 5, 0),
    )
    assert dict(make_rate_headers(states, NOW)) == {
        "anthropic-ratelimit-requests-limit": "600",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-28T09:00:59Z",
        "anthropic-ratelimit-tokens-limit": "9000",
        "anthropic-ratelimit-tokens-remaining": "70",
        "anthropic-ratelimit-tokens-reset": "2026-11-28T09:00:02Z",
    }
