"""Limits of requests, tokens and streams on both databases."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.budgets.conftest import BudgetsUnderTest
from tornado_proxy.budgets.limits.rates import STREAM_ENDED, RateEnd
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateRefusal, RateUnit
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.ledger.postgres import process_locks

SPENDER = Spender("project-a", participant="ada")


def claim(unit: RateUnit, limit: int, units: int = 1, subject: str = "") -> RateClaim:
    """Return what a request takes of a limit of the project."""
    return RateClaim("project-a", subject, unit, limit, units)


def reservation(request_id: str, *claims: RateClaim, forced: bool = False) -> Reservation:
    """Return the reservation of a request without budgets."""
    now = datetime.now(UTC)
    return Reservation(request_id, BudgetedSpender(SPENDER), CostBound(), now, forced=forced, claims=claims)


def take(store: BudgetStore, request_id: str, *claims: RateClaim, forced: bool = False) -> RateRefusal | None:
    """Take what a request claims; return its refusal."""
    (refusal,) = store.reserve([reservation(request_id, *claims, forced=forced)])
    assert refusal is None or isinstance(refusal, RateRefusal)
    return refusal


def test_processes_share_a_limit_exactly(budgets: BudgetsUnderTest) -> None:
    stores = (budgets.store, budgets.open())
    ten = claim(RateUnit.REQUESTS, 10)
    began = time.monotonic()

    refusals = [take(stores[number % 2], f"r{number}", ten) for number in range(14)]

    assert refusals[:10] == [None] * 10
    assert all(refusal is not None for refusal in refusals[10:])
    refusal = refusals[10]
    assert refusal is not None
    assert refusal.state.remaining == 0
    # One request in six seconds.
    passed_s = time.monotonic() - began
    assert refusal.state.wait_s is not None
    assert 6 - passed_s <= refusal.state.wait_s <= 6
    assert 60 - passed_s <= refusal.state.reset_s <= 60


def test_requests_of_one_transaction_stop_at_the_limit(budgets: BudgetsUnderTest) -> None:
    requests = [reservation(f"r{number}", claim(RateUnit.REQUESTS, 7)) for number in range(20)]
    assert budgets.store.reserve(requests).count(None) == 7


def test_refused_request_takes_nothing_of_its_other_limits(budgets: BudgetsUnderTest) -> None:
    one = claim(RateUnit.REQUESTS, 1, subject="participant ada")
    assert take(budgets.store, "r1", one) is None
    assert take(budgets.store, "r2", one, claim(RateUnit.REQUESTS, 1)) is not None
    assert take(budgets.store, "r3", claim(RateUnit.REQUESTS, 1)) is None


def test_request_that_a_budget_refuses_takes_nothing_of_its_limits(budgets: BudgetsUnderTest) -> None:
    nothing = Budget(CounterKind(Scope.PROJECT, Period.MONTH), Decimal(0))
    refused = Reservation(
        "r1",
        BudgetedSpender(SPENDER, (nothing,)),
        CostBound(Decimal(1), Decimal(1)),
        datetime.now(UTC),
        claims=(claim(RateUnit.REQUESTS, 1),),
    )
    assert budgets.store.reserve([refused]) != [None]
    assert take(budgets.store, "r2", claim(RateUnit.REQUESTS, 1)) is None


def test_tokens_that_were_not_used_are_given_back(budgets: BudgetsUnderTest) -> None:
    assert take(budgets.store, "r1", claim(RateUnit.TOKENS, 1000, 900)) is None
    assert take(budgets.store, "r2", claim(RateUnit.TOKENS, 1000, 900)) is not None
    budgets.store.end([RateEnd("r1", {RateUnit.TOKENS: 50})])
    assert take(budgets.store, "r2", claim(RateUnit.TOKENS, 1000, 900)) is None
    refusal = take(budgets.store, "r3", claim(RateUnit.TOKENS, 1000, 900))
    assert refusal is not None
    # 50 + 900 are used, and the moment since has freed a few.
    assert 50 <= refusal.state.remaining < 200


def test_request_that_is_not_sent_gives_all_back_once(budgets: BudgetsUnderTest) -> None:
    both = (claim(RateUnit.REQUESTS, 2), claim(RateUnit.STREAMS, 2))
    assert take(budgets.store, "r1", *both) is None
    assert take(budgets.store, "r2", *both) is None
    for _ in range(2):
        budgets.store.release(["r1", "never reserved"])
    assert budgets.store.rates.count_streams() == {("project-a", ""): 1}
    assert take(budgets.store, "r3", *both) is None
    assert take(budgets.store, "r4", *both) is not None


def test_stream_has_room_as_soon_as_another_one_has_ended(budgets: BudgetsUnderTest) -> None:
    other = budgets.open()
    assert take(budgets.store, "r1", claim(RateUnit.STREAMS, 1)) is None
    refusal = take(other, "r2", claim(RateUnit.STREAMS, 1))
    assert refusal is not None
    assert refusal.state.wait_s is None
    other.end([RateEnd("r1", STREAM_ENDED)])
    assert take(other, "r2", claim(RateUnit.STREAMS, 1)) is None


def test_work_that_runs_is_counted_although_a_limit_is_reached(budgets: BudgetsUnderTest) -> None:
    two = claim(RateUnit.REQUESTS, 2)
    began = time.monotonic()
    for number in range(3):
        take(budgets.store, f"r{number}", two, forced=True)
    refusal = take(budgets.store, "r9", two)
    assert refusal is not None
    assert refusal.state.wait_s is not None
    assert 60 - (time.monotonic() - began) <= refusal.state.wait_s <= 60


@pytest.mark.usefixtures("no_grace")
def test_streams_of_a_dead_process_are_freed(budgets: BudgetsUnderTest) -> None:
    dead = budgets.open("dead")
    budgets.kill(dead)
    assert take(dead, "r1", claim(RateUnit.STREAMS, 1)) is None
    assert take(budgets.store, "r2", claim(RateUnit.STREAMS, 1)) is not None
    assert budgets.store.free_streams()
    assert take(budgets.store, "r2", claim(RateUnit.STREAMS, 1)) is None
    assert not budgets.store.free_streams()  # its own are not freed


@pytest.mark.parametrize("new_budgets", ["postgresql"], indirect=True)
def test_streams_of_a_process_that_connects_again_are_not_freed(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = budgets.open("living")
    assert take(living, "r1", claim(RateUnit.STREAMS, 1)) is None
    with living._databases.locks.hold_opening_lock():
        living._databases.locks.register()  # its lock file: it lives on this machine

    # The server restarts, and frees all locks.
    living._databases.liveness.release()

    assert not budgets.store.free_streams()
    budgets.store.free_dead()
    assert not budgets.store.free_streams()
    assert take(budgets.store, "r2", claim(RateUnit.STREAMS, 1)) is not None
    # It has not connected again for long.
    monkeypatch.setattr(process_locks, "_GRACE_S", 0.0)
    budgets.store.free_dead()
    assert budgets.store.rates.count_streams() == {("project-a", ""): 0}


@pytest.mark.parametrize("used", [{}, {RateUnit.TOKENS: 900}, {RateUnit.TOKENS: 5000}])
def test_tokens_of_unknown_or_full_use_stay_taken(used: dict[RateUnit, int], budgets: BudgetsUnderTest) -> None:
    assert take(budgets.store, "r1", claim(RateUnit.TOKENS, 1000, 900)) is None
    budgets.store.end([RateEnd("r1", used)])
    assert take(budgets.store, "r2", claim(RateUnit.TOKENS, 1000, 900)) is not None
