"""Whoever spends more in a minute than the limit is noted once, in whichever process counts the record."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec import structs

from tests.budgets.conftest import CALLER, MONTH, BudgetsUnderTest, intent, record, usd
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.brake import BrakeLimits
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.record import RequestRecord

#: A project may spend 2 USD in a minute, each of its participants and users 1 USD.
PLAN = CounterPlan((MONTH,), brakes={"project-a": BrakeLimits(Decimal(2), Decimal(1))})


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(budgets: BudgetsUnderTest, now: datetime) -> BudgetStore:
    budgets.store.follow(PLAN, now)
    return budgets.store


def ended(request: str, total: str, at: datetime, name: str = "ada") -> RequestRecord:
    """Return the record of a participant's request that has ended at `at`."""
    return structs.replace(record(request, total, replace(CALLER, participant=name), at=at), ended_at=at)


def list_trips(store: BudgetStore) -> list[tuple[str | None, Decimal, Decimal]]:
    """Count what the ledger holds; return participant, spend and limit of those who are to be stopped."""
    store.folding.fold()
    return [(trip.participant, trip.spent, trip.limit) for trip in store.folding.list_trips()]


def test_spend_of_a_minute_above_the_limit_is_noted_and_until_it_is_forgotten(
    budgets: BudgetsUnderTest, store: BudgetStore, now: datetime
) -> None:
    other = budgets.open("second")
    other.follow(PLAN, now)
    budgets.write(ended("r1", "0.6", now - timedelta(seconds=50)), ended("r2", "0.4", now))
    assert list_trips(store) == []

    budgets.write(ended("r3", "0.01", now))

    assert list_trips(other) == list_trips(store) == [("ada", *usd("1.01", "1"))]
    assert other.folding.take_new_trips()
    assert not store.folding.take_new_trips()
    store.folding.forget_trip(store.folding.list_trips()[0].id)
    assert list_trips(other) == []


def test_spend_that_led_to_one_stop_does_not_lead_to_another(
    budgets: BudgetsUnderTest, store: BudgetStore, now: datetime
) -> None:
    budgets.write(ended("r1", "1.5", now))
    assert list_trips(store) == [("ada", *usd("1.5", "1"))]

    budgets.write(ended("r2", "0.4", now))
    assert len(list_trips(store)) == 1
    # Its project's sum is 1.9 of 2 USD.
    later = now + timedelta(seconds=6)
    budgets.write(structs.replace(ended("r3", "0.05", now), intent=intent("r3", at=later)))
    assert len(list_trips(store)) == 1


def test_limit_counts_again_for_requests_that_began_after_the_stop(
    budgets: BudgetsUnderTest, store: BudgetStore, now: datetime
) -> None:
    budgets.write(ended("r1", "1.5", now))
    list_trips(store)
    later = now + timedelta(seconds=30)

    budgets.write(structs.replace(ended("r2", "1.1", now), intent=intent("r2", at=later)))

    # The project's limit is passed too.
    assert sorted(spent for _, spent, _ in list_trips(store)) == [*usd("1.1", "1.5", "2.6")]


def test_records_that_ended_more_than_a_minute_ago_do_not_count(
    budgets: BudgetsUnderTest, store: BudgetStore, now: datetime
) -> None:
    budgets.write(ended("r1", "50", now - timedelta(seconds=61)), ended("r2", "1", now))

    assert list_trips(store) == []


def test_whole_project_has_a_limit_of_its_own(budgets: BudgetsUnderTest, store: BudgetStore, now: datetime) -> None:
    budgets.write(*(ended(name, "0.7", now, name) for name in ("ada", "eve", "bob")))

    assert list_trips(store) == [(None, *usd("2.1", "2"))]


def test_projects_without_a_limit_are_not_summed(budgets: BudgetsUnderTest, store: BudgetStore, now: datetime) -> None:
    budgets.write(record("r1", "100", replace(CALLER, project_id="project-b"), at=now))

    assert list_trips(store) == []
