"""The limits of a spender's budgets while a change is in force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tornado_proxy.domain.budgets.budget import Budget, BudgetChange
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.spender import Spender

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)
MONTH = CounterKind(Scope.PROJECT, Period.MONTH)
CONFIGURED = Budget(MONTH, Decimal(50))
SPENDER = Spender("project-a", "ada", None, None, "key-1")


@pytest.mark.parametrize(
    ("usd", "until", "expected"),
    [
        pytest.param(
            "10",
            LATER,
            Budget(MONTH, Decimal(10), lowered_until=LATER, limit_then=Decimal(50)),
            id="lowered for a time",
        ),
        pytest.param("10", None, Budget(MONTH, Decimal(10)), id="lowered for good"),
        pytest.param("80", LATER, Budget(MONTH, Decimal(80)), id="raised: nothing to wait for"),
        pytest.param("10", NOW, CONFIGURED, id="over"),
    ],
)
def test_lowered_limit_says_until_when(usd: str, until: datetime | None, expected: Budget) -> None:
    change = BudgetChange("project-a", MONTH, None, Decimal(usd), until, NOW, "admin")
    limits = BudgetLimits({"project-a": (CONFIGURED,)}, {"project-a": (change,)})

    assert limits.apply_changes((CONFIGURED,), SPENDER, NOW) == (expected,)


@pytest.mark.parametrize(
    ("usd_of_all", "limit_then"),
    [
        pytest.param("20", Decimal(20), id="lower than the configured one"),
        pytest.param(None, Decimal("Infinity"), id="lifted"),
    ],
)
def test_change_of_all_subjects_sets_the_limit_after_that_of_one(usd_of_all: str | None, limit_then: Decimal) -> None:
    kind = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    budget = Budget(kind, Decimal(50))
    own = BudgetChange("project-a", kind, "participant ada", Decimal(10), LATER, NOW, "admin")
    of_all = BudgetChange("project-a", kind, None, None if usd_of_all is None else Decimal(usd_of_all), None, NOW, "ed")
    limits = BudgetLimits({"project-a": (budget,)}, {"project-a": (own, of_all)})

    assert limits.apply_changes((budget,), SPENDER, NOW) == (
        Budget(kind, Decimal(10), lowered_until=LATER, limit_then=limit_then),
    )


def test_lifted_budget_limits_nothing() -> None:
    change = BudgetChange("project-a", MONTH, None, None, LATER, NOW, "admin")
    limits = BudgetLimits({"project-a": (CONFIGURED,)}, {"project-a": (change,)})

    assert limits.apply_changes((CONFIGURED,), SPENDER, NOW) == ()
