"""The reservations of counters: their sums, and the oldest ones."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.budgets.conftest import MONTH, NOW, BudgetsUnderTest
from tornado_proxy.budgets.counting.counters import encode_keys, make_key
from tornado_proxy.budgets.leases.leasing import INSERT_LEASED_REQUESTS
from tornado_proxy.budgets.open_reservations import (
    MAX_LISTED,
    MAX_LISTED_OF_COUNTER,
    OpenReservation,
    sum_by_counter,
)
from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.budgets.store import INSERT_RESERVATIONS
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, CounterState, Period, Scope
from tornado_proxy.ledger.rows import format_time

EACH = CounterKind(Scope.PARTICIPANT, Period.MONTH, Amount.SUBTOTAL)

ROWS = 10_000
MAX_BYTES = 2 * 2**20


def make_state(kind: CounterKind, subject: str = "") -> CounterState:
    interval = find_interval(kind.period, kind.start, NOW)
    return CounterState(kind, "project-a", subject, interval, Decimal(0), Decimal(0))


def write_reservations(budgets: BudgetsUnderTest, count: int) -> None:
    """Write held reservations of the project and 250 participants, and one request under way that is older."""
    rows = []
    project = make_key(MONTH, "project-a", "", NOW)
    for number in range(count):
        keys = encode_keys((project, make_key(EACH, "project-a", f"participant p{number % 250}", NOW)))
        at = format_time(NOW - timedelta(seconds=number))  # the newest first
        rows.append((f"req_{number:06}", "0" * 16, "held", at, "0.3", "0.2", keys, "0", "0"))
    leased = ("req_leased", "0" * 16, format_time(NOW - timedelta(days=1)), "7", "5", encode_keys((project,)))
    with budgets.store._budgets.transaction():
        budgets.store._budgets.insert(INSERT_RESERVATIONS, rows)
        budgets.store._budgets.insert(INSERT_LEASED_REQUESTS, [leased])


def test_oldest_reservations_of_each_counter_are_listed_and_the_others_summed(budgets: BudgetsUnderTest) -> None:
    write_reservations(budgets, 250)
    project, ninth = make_state(MONTH), make_state(EACH, "participant p9")

    of_project, of_ninth = budgets.store.sum_reservations([project, ninth], list_oldest=True).values()

    oldest = ["req_leased", *(f"req_{number:06}" for number in range(249, 150, -1))]
    assert [entry.request_id for entry in of_project.oldest] == oldest
    assert (of_project.others, of_project.others_usd, of_project.held) == (151, Decimal("45.3"), Decimal(75))
    assert ([entry.request_id for entry in of_ninth.oldest], of_ninth.others) == (["req_000009"], 0)
    assert of_ninth.held == Decimal("0.2")


def test_memory_does_not_grow_with_the_number_of_reservations(budgets: BudgetsUnderTest) -> None:
    write_reservations(budgets, ROWS)
    budgets.store.sum_reservations([make_state(MONTH)], list_oldest=True)  # fills the cache of keys

    tracemalloc.start()
    try:
        (reservations,) = budgets.store.sum_reservations([make_state(MONTH)], list_oldest=True).values()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (len(reservations.oldest), reservations.others) == (MAX_LISTED_OF_COUNTER, ROWS + 1 - MAX_LISTED_OF_COUNTER)
    assert peak < MAX_BYTES


@pytest.mark.parametrize("list_oldest", [True, False])
def test_all_counters_together_list_a_limited_number(list_oldest: bool) -> None:
    counters = [make_state(EACH, f"participant p{number}") for number in range(110)]
    keys = tuple(make_key(EACH, "project-a", state.subject, NOW) for state in counters)
    reservations = [
        OpenReservation(f"req_{number}", "open", NOW, Decimal(3), Decimal(2), keys)
        for number in range(MAX_LISTED_OF_COUNTER)
    ]

    sums = sum_by_counter(reservations, counters, list_oldest=list_oldest).values()

    assert sum(len(own.oldest) for own in sums) == (MAX_LISTED if list_oldest else 0)
    assert {len(own.oldest) + own.others for own in sums} == {MAX_LISTED_OF_COUNTER}
    assert {own.others_usd for own in sums} == {Decimal(2) * own.others for own in sums}
    assert {own.held for own in sums} == {Decimal(0)}
