"""Names limits as OpenAI does.  Source: OpenAI guide "Rate limits", "Rate limits in headers"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from tornado_proxy.domain.budgets.rate_limits import RateState, RateUnit


def make_rate_headers(states: Sequence[RateState], now: datetime) -> list[tuple[str, str]]:
    """Return the headers of a 429; the first state of each unit counts."""
    headers: list[tuple[str, str]] = []
    for unit in (RateUnit.REQUESTS, RateUnit.TOKENS):
        state = next((state for state in states if state.claim.unit is unit), None)
        if state is not None:
            headers += [
                (f"x-ratelimit-limit-{unit}", str(state.claim.limit)),
                (f"x-ratelimit-remaining-{unit}", str(state.remaining)),
                (f"x-ratelimit-reset-{unit}", _format_duration(state.reset_s)),
            ]
    return headers


def _format_duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: 120ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
