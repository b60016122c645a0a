"""Limits as values."""

from __future__ import annotations

import pytest

from tornado_proxy.domain.budgets.rate_limits import ProjectLimits, RateClaim, RateRefusal, RateState, RateUnit


@pytest.mark.parametrize(
    ("limits", "limits_tokens"),
    [
        (ProjectLimits(), False),
        (ProjectLimits({RateUnit.REQUESTS: 1}), False),
        (ProjectLimits({RateUnit.TOKENS: 1}), True),
        (ProjectLimits({}, {RateUnit.TOKENS: 1}), True),
    ],
)
def test_limits_know_which_units_they_limit(limits: ProjectLimits, *, limits_tokens: bool) -> None:
    assert limits.limits_unit(RateUnit.TOKENS) is limits_tokens
    assert bool(limits) is (limits != ProjectLimits())


def test_refusal_begins_with_the_limit_that_refuses() -> None:
    states = tuple(
        RateState(RateClaim("project", "", unit, 1, 1), 0, 1.0, 1.0) for unit in (RateUnit.TOKENS, RateUnit.REQUESTS)
    )
    assert RateRefusal(states).state.claim.unit is RateUnit.TOKENS
