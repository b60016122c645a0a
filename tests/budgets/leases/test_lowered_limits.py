"""Limits that are lowered while a slice of them is written: the new one holds at once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.budgets.conftest import MONTH, BudgetsUnderTest, record, reservation
from tests.budgets.limits.test_rates import claim
from tests.budgets.test_deciding import call_after
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.rate_limits import RateUnit


def test_lower_budget_is_not_exceeded(
    budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    high, low = (Budget(MONTH, Decimal(limit), strict=True) for limit in (100, 10))
    budgets.write(record("earlier", "9"))
    store.folding.fold()
    for number in range(2):
        assert not slices.take(reservation(f"ask {number}", "0.5", high))

    call_after(monkeypatch, Slices, "begin_lease", lambda: slices.take(reservation("first", "0.5", low)))
    store.sync_leases()

    admitted = [slices.take(reservation(f"r{number}", "0.5", low)) for number in range(18)]
    assert admitted.count(True) <= 2
    # The next sync leases for the new limit: a tenth of 1 USD is too little.
    store.sync_leases()
    assert slices.slices[min(slices.slices)].limit == 10


def test_lower_rate_is_not_exceeded(store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    high, low = claim(RateUnit.REQUESTS, 6000), claim(RateUnit.REQUESTS, 2)
    for number in range(20):
        assert not slices.rates.take(f"ask {number}", (high,))

    call_after(monkeypatch, store.rates, "write", lambda: slices.rates.take("first", (low,)))
    store.sync_leases()

    admitted = [slices.rates.take(f"r{number}", (low,)) for number in range(80)]
    assert admitted.count(True) <= 2
