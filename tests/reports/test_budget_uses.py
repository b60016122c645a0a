"""How much of each budget is spent: the limit in force, and of many subjects the one nearest to its limit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.reports.test_budgets import EACH, MONTH, NOVEMBER, NOW, change
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, CounterState, Interval
from tornado_proxy.reports import budget_uses
from tornado_proxy.reports.budget_uses import find_uses

OCTOBER = Interval(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))


def counter(kind: CounterKind, subject: str, usd: str, interval: Interval = NOVEMBER) -> CounterState:
    return CounterState(kind, "p", subject, interval, Decimal(usd), Decimal(9))


def test_spend_and_limit_in_force_of_the_current_period() -> None:
    limits = BudgetLimits({"p": (Budget(MONTH, Decimal(500)),)}, {"p": (change(MONTH, "", "800"),)})

    (use,) = find_uses(limits, [counter(MONTH, "", "200"), counter(MONTH, "", "700", OCTOBER)], NOW)

    assert (use.project_id, use.kind, use.settled, use.limit, use.ratio) == ("p", MONTH, 200, 800, 0.25)


def test_subject_that_has_used_most_of_its_own_limit_is_shown() -> None:
    limits = BudgetLimits({"p": (Budget(EACH, Decimal(10)),)}, {"p": (change(EACH, "participant eve", "100"),)})
    counters = [counter(EACH, f"participant {name}", usd) for name, usd in (("ada", "4"), ("eve", "30"), ("bob", "3"))]

    (use,) = find_uses(limits, counters, NOW)

    assert (use.settled, use.limit) == (4, 10)


def test_budget_without_spend_is_shown_and_a_lifted_one_is_not() -> None:
    limits = BudgetLimits({"p": (Budget(MONTH, Decimal(5)), Budget(EACH, Decimal(0)))})
    lifted = BudgetLimits(limits.budgets, {"p": (change(MONTH, None, None),)})

    assert [(use.kind, use.ratio) for use in find_uses(limits, [], NOW)] == [(EACH, 1.0), (MONTH, 0.0)]
    assert [use.kind for use in find_uses(lifted, [], NOW)] == [EACH]


def test_number_of_budgets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_uses, "MAX_USES", 2)
    limits = BudgetLimits({name: (Budget(MONTH, Decimal(10)),) for name in ("p", "q", "r")})

    assert [use.project_id for use in find_uses(limits, [counter(MONTH, "", "1")], NOW)] == ["p", "q"]
