"""A budget warns at 50, 80 and 100 % of its limit, once in all processes of a ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.budgets.conftest import CALLER, MONTH, BudgetsUnderTest, record
from tornado_proxy.budgets.counting import counters
from tornado_proxy.budgets.schedule import Schedule
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget, BudgetChange
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, CounterPlan, Period, Scope

LIMITS = BudgetLimits({"project-a": (Budget(MONTH, Decimal(10)),)})


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def take(*stores: BudgetStore) -> list[tuple[int, Decimal, Decimal]]:
    """Count new records in each process; return threshold, limit and settled USD of the warnings that were made."""
    for store in stores:
        store.folding.fold()
    taken = [warning for store in stores for warning in store.folding.take_warnings()]
    return [(warning.threshold, warning.limit, warning.counter.settled) for warning in taken]


def test_each_threshold_warns_once_in_all_processes(budgets: BudgetsUnderTest, now: datetime) -> None:
    processes = (budgets.store, budgets.open("second"))
    for store in processes:
        store.follow(CounterPlan((MONTH,)), now)
        store.folding.limits = LIMITS

    made = []
    for number, usd in enumerate(("4.99", "0.01", "2.99", "0.01", "1.99", "0.01", "5")):
        budgets.write(record(f"r{number}", usd, at=now))
        made.append(take(*reversed(processes)))
        for store in processes:
            store.folding.check_warnings(now)
        assert take(*processes) == []

    assert made == [
        [],
        [(50, Decimal(10), Decimal(5))],
        [],
        [(80, Decimal(10), Decimal(8))],
        [],
        [(100, Decimal(10), Decimal(10))],
        [],
    ]


def test_request_that_passes_several_thresholds_warns_of_the_highest(budgets: BudgetsUnderTest, now: datetime) -> None:
    budgets.store.folding.limits = LIMITS
    budgets.write(record("r1", "9", at=now))

    assert take(budgets.store) == [(80, Decimal(10), Decimal(9))]


def test_changed_limit_has_warnings_of_its_own(budgets: BudgetsUnderTest, now: datetime) -> None:
    budgets.store.folding.limits = LIMITS
    budgets.write(record("r1", "10", at=now))
    assert take(budgets.store) == [(100, Decimal(10), Decimal(10))]

    change = BudgetChange("project-a", MONTH, "", Decimal("12.0"), None, now, "admin")
    budgets.store.folding.limits = BudgetLimits(LIMITS.budgets, {"project-a": (change,)})
    budgets.store.folding.check_warnings(now)

    assert take(budgets.store) == [(80, Decimal(12), Decimal(10))]
    assert budgets.open("second").folding.take_warnings() == []


def test_changed_limit_warns_of_each_counter_however_many_there_are(
    budgets: BudgetsUnderTest, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "PAGE_SIZE", 2)
    people = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    budgets.store.follow(CounterPlan((people,)), now)
    spends = {"ann": "4", "ben": "9", "cid": "10", "dan": "5.000000000001", "eve": "4.999999999999", "flo": "5"}
    entries = [record(name, usd, replace(CALLER, participant=name), at=now) for name, usd in spends.items()]
    budgets.write(*entries)
    assert take(budgets.store) == []

    # The lowest limit of all projects, which selects the counters; and a counter of a period that has ended.
    lower = {"project-b": (Budget(people, Decimal(2)),)}
    for limits in (
        {"project-a": (Budget(people, Decimal(10)),)},
        {"project-a": (Budget(people, Decimal(11)),)} | lower,
    ):
        budgets.store.folding.limits = BudgetLimits(limits)
        budgets.store.folding.check_warnings(now)
        budgets.store.folding.check_warnings(now + timedelta(days=40))

    warnings = budgets.store.folding.take_warnings()
    assert [(warning.counter.subject, warning.threshold, warning.limit) for warning in warnings] == [
        ("participant ben", 80, Decimal(10)),
        ("participant cid", 100, Decimal(10)),
        ("participant dan", 50, Decimal(10)),
        ("participant flo", 50, Decimal(10)),
        ("participant ben", 80, Decimal(11)),
        ("participant cid", 80, Decimal(11)),
    ]


def test_counters_far_from_their_limits_are_read_while_another_process_counts(
    budgets: BudgetsUnderTest, now: datetime
) -> None:
    budgets.store.follow(CounterPlan((MONTH,)), now)
    budgets.write(record("a", "4.9", at=now))
    budgets.store.folding.fold()
    budgets.store.folding.limits = LIMITS
    other = budgets.open("second")._budgets

    with other.transaction():
        other.run("UPDATE budget_meta SET value = value")
        budgets.store.folding.check_warnings(now)

    assert budgets.store.folding.take_warnings() == []


def test_lifted_budget_does_not_warn(budgets: BudgetsUnderTest, now: datetime) -> None:
    change = BudgetChange("project-a", MONTH, "", None, None, now, "admin")
    budgets.store.folding.limits = BudgetLimits(LIMITS.budgets, {"project-a": (change,)})
    budgets.write(record("r1", "10", at=now))

    assert take(budgets.store) == []


def test_alert_of_a_process_that_died_is_found_until_it_is_stored(budgets: BudgetsUnderTest, now: datetime) -> None:
    dying, other = budgets.open("dying"), budgets.open("other")
    dying.folding.limits = LIMITS
    budgets.write(record("r1", "9", at=now))
    dying.folding.fold()
    (claimed,) = dying.folding.take_warnings()
    later = datetime.now(UTC) + timedelta(seconds=1)

    assert other.folding.list_untold(now - timedelta(seconds=1)) == []  # its own process may store it yet
    (untold,) = other.folding.list_untold(later)
    assert (untold.threshold, untold.limit, untold.counter.settled) == (80, Decimal(10), Decimal(9))
    assert untold.counter.interval == claimed.counter.interval

    other.folding.forget_alert(untold)
    assert budgets.store.folding.list_untold(later) == []


def test_warnings_of_many_counters_are_claimed_some_in_each_turn(
    budgets: BudgetsUnderTest, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that reserves does not wait for all of them."""
    monkeypatch.setattr(counters, "PAGE_SIZE", 2)
    people = CounterKind(Scope.PARTICIPANT, Period.MONTH)
    budgets.store.follow(CounterPlan((people,)), now)
    budgets.write(*(record(name, "9", replace(CALLER, participant=name), at=now) for name in ("ann", "ben", "cid")))
    assert take(budgets.store) == []
    budgets.store.folding.limits = BudgetLimits({"project-a": (Budget(people, Decimal(10)),)})
    schedule = Schedule()

    claimed = []
    while not claimed or schedule.wait_s() == 0:
        schedule.run(budgets.store)
        claimed.append(len(budgets.store.folding.take_warnings()))

    assert claimed == [2, 1, 0]
