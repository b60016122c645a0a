"""The rows of the page of budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tornado_proxy.dashboard.budgets_page import show_budgets
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.counter import CounterKind, CounterState, Interval, Period, Scope
from tornado_proxy.reports.budgets import BudgetRow

MONTH = CounterKind(Scope.PROJECT, Period.MONTH)
NOVEMBER = Interval(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("until", "shown"),
    [
        (datetime(2026, 11, 28, 14, 30, tzinfo=UTC), "changed by admin until 2026-11-28 14:30"),
        (None, "changed by admin"),
    ],
)
def test_changed_limit_names_its_end(until: datetime | None, shown: str) -> None:
    state = CounterState(MONTH, "project-a", "", NOVEMBER, Decimal(2), Decimal(0))
    change = BudgetChange("project-a", MONTH, None, Decimal(8), until, NOW, "admin")
    row = BudgetRow(state, Decimal(8), Decimal(5), False, change, None, Decimal(0), Decimal(0), ())

    (budget,) = show_budgets([row], Viewer())

    assert (budget.change, budget.limit) == (shown, "8.00")
