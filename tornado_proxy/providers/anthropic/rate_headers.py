"""Names limits as Anthropic does.  Source: Claude docs, "Rate limits", response headers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tornado_proxy.domain.budgets.rate_limits import RateState, RateUnit


def make_rate_headers(states: Sequence[RateState], now: datetime) -> list[tuple[str, str]]:
    """Return the headers of a 429; the first state of each unit counts.  `now` is aware UTC."""
    headers: list[tuple[str, str]] = []
    for unit in (RateUnit.REQUESTS, RateUnit.TOKENS):
        state = next((state for state in states if state.claim.unit is unit), None)
        if state is not None:
            reset = now + timedelta(seconds=state.reset_s)
            headers += [
                (f"anthropic-ratelimit-{unit}-limit", str(state.claim.limit)),
                (f"anthropic-ratelimit-{unit}-remaining", str(state.remaining)),
                (f"anthropic-ratelimit-{unit}-reset", f"{reset:%Y-%m-%dT%H:%M:%SZ}"),
            ]
    return headers
