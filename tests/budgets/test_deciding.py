"""Decisions about requests that idle slices of another process are in the way of, at each moment of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from tests.budgets.conftest import MONTH, BudgetsUnderTest, record, reservation
from tests.budgets.limits.test_rates import claim
from tornado_proxy.budgets import deciding as deciding_module
from tornado_proxy.budgets.deciding import Decisions, Demand
from tornado_proxy.budgets.leases import slices as slices_module
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.limits import rate_slices
from tornado_proxy.budgets.limits.rates import NOTHING_USED
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.rate_limits import RateRefusal, RateUnit
from tornado_proxy.domain.budgets.refusal import BudgetRefusal, Refusal
from tornado_proxy.domain.budgets.reservation import Reservation

STRICT = Budget(MONTH, Decimal(1), strict=True)


def spend(name: str, percent: int) -> Reservation:
    """Return a request that reserves a part of a budget."""
    return reservation(name, str(Decimal(percent) / 100), STRICT)


def open_streams(name: str, percent: int) -> Reservation:
    """Return a request that takes a part of a limit of streams."""
    return replace(reservation(name, "0"), claims=(claim(RateUnit.STREAMS, 100, percent),))


def spend_and_open(name: str, percent: int) -> Reservation:
    """Return a request that takes a part of both."""
    return replace(spend(name, percent), claims=open_streams(name, percent).claims)


def take(slices: Slices, request: Reservation) -> bool:
    """Take a request from all slices that it needs."""
    is_taken = not request.claims or slices.rates.take(request.request_id, request.claims)
    return (not request.budgeted.budgets or slices.take(request)) and is_taken


def lease(store: BudgetStore, slices: Slices, make: Callable[[str, int], Reservation]) -> None:
    """Lease in a process, which uses nothing of it."""
    for number in range(2):
        assert not take(slices, make(f"ask {number}", 1))
    store.sync_leases()
    idle = make("idle", 1)
    assert take(slices, idle)
    has_ended = slices.rates.end(idle.request_id, NOTHING_USED)
    assert slices.release(idle.request_id) or has_ended


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers, and use leased units, however long a busy machine takes."""
    monkeypatch.setattr(deciding_module, "_ANSWER_S", 60)
    monkeypatch.setattr(rate_slices, "_VALID_S", 60)
    monkeypatch.setattr(slices_module, "_VALID_S", 60)


@dataclass
class Deciding:
    """A process that decides about a request for all of a budget or limit, and another one that leases."""

    budgets: BudgetsUnderTest
    make: Callable[[str, int], Reservation]

    def __post_init__(self) -> None:
        self.store = self.budgets.store
        self.slices = Slices()
        self.other = self.budgets.open("other", slices=self.slices)
        self.answers: list[Refusal | None] = []
        self.decisions = Decisions(lambda results: self.answers.extend(result for _, result in results))

    def lease(self) -> None:
        """Lease in the other process, which uses nothing of it."""
        lease(self.other, self.slices, self.make)

    def decide(self) -> None:
        """Decide about the request."""

        async def run() -> None:
            done: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
            self.decisions.decide(self.store, [Demand(self.make("all", 100), done)], is_last=False)

        asyncio.run(run())

    def retry(self) -> list[Refusal | None]:
        """Decide again; return the answers."""
        self.decisions.retry(self.store, is_last=False)
        return self.answers


@pytest.fixture(params=[spend, open_streams])
def deciding(budgets: BudgetsUnderTest, request: pytest.FixtureRequest) -> Deciding:
    """Return two processes that share a budget, and then a limit."""
    return Deciding(budgets, request.param)


def call_after(monkeypatch: pytest.MonkeyPatch, holder: object, name: str, act: Callable[[], object]) -> None:
    """Call `act` after the next call of a method."""
    method: Callable[..., Any] = getattr(holder, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(holder, name, method)
        result = method(*args, **kwargs)
        act()
        return result

    monkeypatch.setattr(holder, name, call)


def find_leasing(store: BudgetStore, deciding: Deciding) -> object:
    return store.rate_leasing if deciding.make is open_streams else store.leasing


def test_answer_that_comes_at_once_is_used(deciding: Deciding, monkeypatch: pytest.MonkeyPatch) -> None:
    deciding.lease()
    call_after(monkeypatch, find_leasing(deciding.store, deciding), "recall", deciding.other.sync_leases)

    deciding.decide()

    assert deciding.answers == []
    assert deciding.retry() == [None]


def test_answer_that_comes_while_the_request_is_decided_again_is_used(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    deciding.lease()
    deciding.decide()
    assert deciding.retry() == []
    deciding.budgets.write(record("counted", "0"))
    call_after(monkeypatch, deciding.store, "reserve", deciding.other.sync_leases)

    assert deciding.retry() == []

    assert deciding.retry() == [None]


def test_process_that_leases_after_others_were_asked_is_asked_too(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = deciding.make("first", 50)
    assert deciding.other.reserve([first]) == [None]

    def lease_instead() -> None:
        deciding.other.release([first.request_id])
        deciding.lease()

    call_after(monkeypatch, find_leasing(deciding.store, deciding), "recall", lease_instead)
    deciding.decide()
    assert deciding.answers == []

    deciding.other.sync_leases()

    assert deciding.retry() == [None]


def test_third_process_that_leases_meanwhile_is_asked_too(deciding: Deciding) -> None:
    slices = Slices()
    third = deciding.budgets.open("third", slices=slices)
    deciding.lease()
    deciding.decide()
    assert deciding.retry() == []

    lease(third, slices, deciding.make)
    deciding.other.sync_leases()
    assert deciding.retry() == []
    third.sync_leases()

    assert deciding.retry() == [None]


def test_units_in_use_refuse_when_all_have_answered(deciding: Deciding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding_module, "_COUNT_S", 0)
    deciding.lease()
    assert take(deciding.slices, deciding.make("runs", 1))
    deciding.decide()
    assert deciding.retry() == []

    deciding.other.sync_leases()

    assert [type(refusal) for refusal in deciding.retry()] in ([BudgetRefusal], [RateRefusal])


def test_own_lease_of_the_meantime_is_given_back(budgets: BudgetsUnderTest) -> None:
    # Those who ask for streams of a session do not take from slices before.
    deciding = Deciding(budgets, open_streams)
    deciding.lease()
    deciding.decide()
    for number in range(2):
        assert not take(deciding.store._slices, open_streams(f"own {number}", 1))

    deciding.other.sync_leases()

    assert deciding.retry() == [None]


def test_budget_that_refuses_after_a_limit_has_been_given_back_is_asked_for_too(budgets: BudgetsUnderTest) -> None:
    deciding = Deciding(budgets, spend_and_open)
    deciding.lease()
    deciding.decide()
    deciding.other.sync_leases()
    assert deciding.retry() == []

    deciding.other.sync_leases()

    assert deciding.retry() == [None]


def test_record_that_another_process_counts_after_the_decision_is_used(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding_module, "_COUNT_S", 60)
    deciding = Deciding(budgets, spend)
    assert deciding.store.reserve([spend("first", 100)]) == [None]
    budgets.write(record("first", "0"))

    def decide_first() -> None:
        call_after(monkeypatch, deciding.store, "reserve", deciding.other.folding.fold)

    call_after(monkeypatch, deciding.store, "reserve", decide_first)
    deciding.decide()
    assert deciding.answers == []

    assert deciding.retry() == [None]
