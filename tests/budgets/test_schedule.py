"""When the thread of the budgets does its work."""

from __future__ import annotations

import pytest

from tests.budgets.conftest import BudgetsUnderTest, record, settlement, usd
from tornado_proxy.budgets.counting import folding
from tornado_proxy.budgets.schedule import Schedule
from tornado_proxy.domain.usage import Basis


def test_settlements_of_a_large_batch_are_counted_without_a_pause(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_MAX_SETTLEMENTS", 1)
    budgets.write(*(record(name, "0", basis=Basis.PENDING) for name in "abc"))
    budgets.store.folding.fold()
    budgets.write(*(settlement(name, "0.3") for name in "abc"))

    schedule, spent = Schedule(), []
    while schedule.wait_s() == 0:
        schedule.run(budgets.store)
        spent.append(budgets.figures()[""])

    assert spent[:3] == [usd("0.3", "0"), usd("0.6", "0"), usd("0.9", "0")]
