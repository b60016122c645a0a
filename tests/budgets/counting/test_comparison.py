"""Counters are compared with the ledger some at a time, while records are counted; those that differ are corrected."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.budgets.conftest import CALLER, NOW, BudgetsUnderTest, record, usd
from tornado_proxy.budgets.counting import comparison
from tornado_proxy.budgets.counting.counters import COLUMNS
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.ledger.archives.archiving import archive_records
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.dialect import Insert

PEOPLE = CounterKind(Scope.PARTICIPANT, Period.DAY)
NAMES = ("ann", "ben", "cid", "dan", "eve", "flo")

_INSERT_COUNTERS = Insert("budget_counters", (*COLUMNS.split(", "), "settled", "reserved"), "")


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_PAGE_SIZE", 2)


def spend(budgets: BudgetsUnderTest, name: str, number: int, days: int = 0) -> None:
    caller = replace(CALLER, participant=name)
    budgets.write(record(f"{name}{number}", "0.1", caller, at=NOW + timedelta(days=days)))


@pytest.mark.usefixtures("short_pages")
def test_each_counter_that_differs_is_corrected(budgets: BudgetsUnderTest) -> None:
    budgets.store.folding.register([PEOPLE], NOW)
    for name in NAMES:
        spend(budgets, name, 1)
    budgets.store.folding.fold()
    db = budgets.open()._budgets
    db.run("UPDATE budget_counters SET settled = '0.35' WHERE subject = 'participant ben'")
    db.run("UPDATE budget_counters SET subject = 'participant cyd' WHERE subject = 'participant cid'")
    db.run("UPDATE budget_counters SET settled = '0.02' WHERE subject = 'participant flo'")

    # 0.25 too much, 0.1 for a name without records, 0.1 and 0.08 too little.
    assert budgets.store.folding.correct(NOW) == Decimal("0.53")

    figures = budgets.figures(PEOPLE)
    assert figures == {f"participant {name}": usd("0.1", "0") for name in NAMES} | {"participant cyd": usd("0", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_counters_of_the_next_period_are_left_alone(budgets: BudgetsUnderTest) -> None:
    """A comparison can begin at the end of a day, and its records be counted on the next one."""
    budgets.store.folding.register([PEOPLE], NOW)
    spend(budgets, "ann", 1, days=1)
    budgets.store.folding.fold()

    assert budgets.store.folding.correct(NOW) == 0

    (counter,) = [state for state in budgets.store.list_counters() if state.kind == PEOPLE]
    assert (counter.subject, counter.settled) == ("participant ann", Decimal("0.1"))


def test_counters_keep_what_pruned_records_have_cost(budgets: BudgetsUnderTest, tmp_path: Path) -> None:
    kinds = [CounterKind(scope, Period.TOTAL) for scope in (Scope.ACCESS_KEY, Scope.PARTICIPANT)]
    budgets.store.folding.register(kinds, NOW)
    caller = replace(CALLER, credential_id="ak_1")
    budgets.write(record("old", "0.1", caller, at=NOW - timedelta(days=40)), record("new", "0.2", caller))
    budgets.store.folding.fold()
    backend = make_backend(budgets.address)
    archive_records(backend, "2026-10-24", tmp_path / "archive", lambda _: None)
    assert prune_records(backend, "2026-10-24", tmp_path / "archive").removed == 1

    assert budgets.store.folding.correct(NOW) == 0
    budgets.open()._budgets.run("UPDATE budget_counters SET settled = '0.9'")
    # The month's of the project, and the participant's: the ledger keeps the sums of pruned records.
    assert budgets.store.folding.correct(NOW) == Decimal("0.7") + Decimal("0.6")

    assert [budgets.figures(kind) for kind in kinds] == [
        {"ak_1": usd("0.9", "0")},
        {"participant ada": usd("0.3", "0")},
    ]


@pytest.mark.usefixtures("short_pages")
def test_records_that_are_counted_meanwhile_make_no_difference(budgets: BudgetsUnderTest) -> None:
    budgets.store.folding.register([PEOPLE], NOW)
    for name in NAMES:
        spend(budgets, name, 0)
    counting = budgets.open("second")
    counted: list[int] = []
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            number = len(counted) + 1
            spend(budgets, NAMES[number % len(NAMES)], number)
            counting.folding.fold()
            counted.append(number)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        differences = []
        meanwhile = 0
        while meanwhile < 5:
            before = len(counted)
            differences.append(budgets.store.folding.correct(NOW))
            meanwhile += len(counted) - before
    finally:
        is_over.set()
        thread.join()

    assert set(differences) == {Decimal(0)}
    total = sum(settled for settled, _ in budgets.figures(PEOPLE).values())
    assert total == Decimal("0.1") * (len(NAMES) + len(counted))


def watch_limits(store: BudgetStore) -> None:
    store.folding.limits = BudgetLimits({"project-a": (Budget(PEOPLE, Decimal(10)),)})
    store.folding.check_warnings(NOW)


@pytest.mark.parametrize("work", [lambda store: store.folding.correct(NOW), watch_limits])
def test_memory_does_not_grow_with_the_number_of_counters(
    budgets: BudgetsUnderTest, work: Callable[[BudgetStore], object]
) -> None:
    budgets.store.folding.register([PEOPLE], NOW)
    kind = '["participant","day","total","",""]'
    day = ("2026-11-28T00:00:00.000Z", "2026-11-29T00:00:00.000Z")
    db = budgets.open()._budgets
    with db.transaction():
        rows = [(kind, "project-a", f"participant {number}", *day, "0", "0") for number in range(10_000)]
        db.insert(_INSERT_COUNTERS, rows)
    del rows

    tracemalloc.start()
    try:
        work(budgets.store)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # All at once would be some 10 MB.
    assert peak_bytes < 2_000_000
