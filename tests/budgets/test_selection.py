"""Which budget a command or a request of the admin port names."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tornado_proxy.budgets.selection import BudgetSelector, find_kind
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, Period, Scope
from tornado_proxy.domain.errors import BadRequest, NotFound

FIRST = CounterKind(Scope.PROJECT, Period.MONTH)
TENTH = CounterKind(Scope.PROJECT, Period.MONTH, start=date(2026, 1, 10))
SUBTOTAL = CounterKind(Scope.PROJECT, Period.MONTH, Amount.SUBTOTAL)


def make_limits(*kinds: CounterKind) -> BudgetLimits:
    return BudgetLimits({"project-a": tuple(Budget(kind, Decimal(1)) for kind in kinds)})


@pytest.mark.parametrize(
    ("start", "expected"),
    [(None, FIRST), (date(2026, 1, 10), TENTH)],
    ids=["without a start", "with its start"],
)
def test_budgets_that_differ_in_their_start_alone_are_told_apart(start: date | None, expected: CounterKind) -> None:
    limits = make_limits(TENTH, FIRST)

    assert find_kind(limits, BudgetSelector("project-a", Period.MONTH, start=start)) == expected


def test_budgets_that_differ_in_more_must_be_named() -> None:
    with pytest.raises(BadRequest, match=r"several such budgets: .*; name per, label, of and start of one"):
        find_kind(make_limits(FIRST, SUBTOTAL), BudgetSelector("project-a", Period.MONTH))


def test_project_without_budgets_says_where_to_add_one() -> None:
    with pytest.raises(NotFound, match="the project has no budgets; add one to its file"):
        find_kind(make_limits(), BudgetSelector("project-a", Period.MONTH))
