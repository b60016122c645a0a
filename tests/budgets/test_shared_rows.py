"""Transactions of two processes on PostgreSQL that change the same rows: no deadlock, and no change is made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.budgets.conftest import MONTH, BudgetsUnderTest
from tests.budgets.conftest import reservation as spending
from tests.budgets.limits.test_rates import claim, reservation, take
from tests.budgets.test_deciding import call_after
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.limits.rates import LockedBuckets
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateUnit

pytestmark = [
    pytest.mark.parametrize("new_budgets", ["postgresql"], indirect=True),
    pytest.mark.usefixtures("no_grace"),
]

#: Seconds in which another thread gets to the lock that it waits for, if there is one.
BLOCKED_S = 1.0


class Elsewhere:
    """Calls a function in another thread, in the middle of a transaction of this one."""

    def __init__(self, budgets: BudgetsUnderTest, call: Callable[[], object]) -> None:
        self._watching = budgets.open("watching")._budgets
        self._call = call
        self._pool = ThreadPoolExecutor(1)
        self._called: Future[object] | None = None

    def begin(self) -> None:
        """Call the function, and wait until it waits for a lock; not again."""
        if self._called is not None:
            return
        self._called = self._pool.submit(self._call)
        deadline = time.monotonic() + BLOCKED_S
        while time.monotonic() < deadline and not self._called.done():
            if self._watching.fetch_rows("SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1"):
                break
            time.sleep(0.01)

    def end(self) -> object:
        """Return the function's result, or raise its fault."""
        assert self._called is not None, "begin() was not reached"
        self._pool.shutdown()
        return self._called.result()


def test_streams_of_a_dead_process_are_freed_beside_requests(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (claim(RateUnit.STREAMS, 100), claim(RateUnit.STREAMS, 100, subject="participant z"))
    slices = Slices()
    dead = budgets.open("dead", slices=slices)
    assert take(dead, "r1", both[1]) is None
    for number in range(2):
        assert not slices.rates.take(f"ask {number}", both[:1])
    dead.sync_leases()
    budgets.kill(dead)
    other = budgets.open("other")
    request = Elsewhere(budgets, lambda: other.reserve([reservation("r2", *both)]))
    call_after(monkeypatch, budgets.store.rates, "lock", request.begin)

    assert budgets.store.free_streams()

    assert request.end() == [None]


def test_streams_of_a_dead_process_are_freed_once(budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = claim(RateUnit.STREAMS, 100)
    slices = Slices()
    dead, other = budgets.open("dead", slices=slices), budgets.open("other")
    assert take(budgets.store, "living", claim(RateUnit.STREAMS, 100, 5)) is None
    for number in range(2):
        assert not slices.rates.take(f"ask {number}", (streams,))
    dead.sync_leases()
    assert budgets.store.rates.count_streams() == {("project-a", ""): 13}
    budgets.kill(dead)
    lock = budgets.store.rates.lock

    def lock_after_another(claims: Iterable[RateClaim]) -> LockedBuckets:
        assert other.free_streams()
        return lock(claims)

    monkeypatch.setattr(budgets.store.rates, "lock", lock_after_another)
    budgets.store.free_streams()

    assert budgets.store.rates.count_streams() == {("project-a", ""): 5}


def test_slices_are_renewed_beside_a_recall(budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    day = CounterKind(Scope.PROJECT, Period.DAY)
    slices = Slices()
    store = budgets.open("leasing", slices=slices)
    for kind in (MONTH, day):  # the row of `month` is first in the table, and last in the order of keys
        for number in range(2):
            slices.take(spending(f"ask {number}", "0.5", Budget(kind, Decimal(100))))
        store.sync_leases()
    store._budgets.run("ANALYZE budget_leases")  # as autovacuum does
    renewal = Elsewhere(budgets, lambda: store.leasing._renew(time.monotonic()))
    recalling = budgets.store._budgets
    run = recalling.run

    def run_and_begin(sql: str, values: Sequence[object] = ()) -> None:
        run(sql, values)
        if "SET recalled = 1" in sql:
            recalling.fetch_rows("SELECT 1")  # the statement has arrived at the server
            renewal.begin()

    monkeypatch.setattr(recalling, "run", run_and_begin)

    assert budgets.store.leasing.recall(sorted(slices.slices))

    renewal.end()
