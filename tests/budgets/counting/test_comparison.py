"""Counters are compared with the ledger some at a time, while records are counted; those that differ are corrected."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest

from tests.budgets.conftest import CALLER, NOW, BudgetsUnderTest, record, settlement, usd
from tornado_proxy.budgets.counting import comparison, expected_counters, ledger_records, settlements
from tornado_proxy.budgets.counting.counters import COLUMNS
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.archives.archiving import archive_records
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.dialect import Insert

PEOPLE = CounterKind(Scope.PARTICIPANT, Period.DAY)
NAMES = ("ann", "ben", "cid", "dan", "eve", "flo")

_Result = TypeVar("_Result")

_INSERT_COUNTERS = Insert("budget_counters", (*COLUMNS.split(", "), "settled", "reserved"), "")


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_PAGE_SIZE", 2)
    monkeypatch.setattr(settlements, "_PAGE_SIZE", 2)


def spend(budgets: BudgetsUnderTest, name: str, number: int, days: int = 0) -> None:
    caller = replace(CALLER, participant=name)
    budgets.write(record(f"{name}{number}", "0.1", caller, at=NOW + timedelta(days=days)))


def spend_later(budgets: BudgetsUnderTest, name: str, number: int) -> None:
    """Write a request that is given up at 0.3 USD, and then settled at 0.1."""
    caller = replace(CALLER, participant=name)
    budgets.write(
        record(f"later {name}{number}", "0", caller, basis=Basis.PENDING),
        settlement(f"later {name}{number}", "0.3", basis=Basis.ESTIMATED, final=False),
        settlement(f"later {name}{number}", "0.1"),
    )


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
@pytest.mark.parametrize("write", [spend, spend_later])
def test_records_that_are_counted_meanwhile_make_no_difference(
    budgets: BudgetsUnderTest, write: Callable[[BudgetsUnderTest, str, int], None]
) -> None:
    budgets.store.folding.register([PEOPLE], NOW)
    for name in NAMES:
        spend(budgets, name, 0)
    counting = budgets.open("second")
    counted: list[int] = []
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            number = len(counted) + 1
            write(budgets, NAMES[number % len(NAMES)], number)
            counting.folding.fold()
            counting.folding.fold_settlements()
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


def measure_peak_bytes(work: Callable[[], _Result]) -> tuple[int, _Result]:
    """Return the highest number of bytes that Python has allocated in `work`, and its result."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


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

    peak_bytes, _ = measure_peak_bytes(lambda: work(budgets.store))

    # All at once would be some 10 MB.
    assert peak_bytes < 2_000_000


#: Records of as many agent sessions, each pending and settled.
_RECORDS = 1000


def settle_many(budgets: BudgetsUnderTest) -> None:
    """Write records that were settled at 0.3 USD, each of an agent session of its own."""
    ledger = budgets.store._databases.ledger
    at = "2026-11-28T11:00:00.000Z"
    columns = ("request_id", "project_id", "agent_session", "started_at", "ended_at", "basis", "total", "subtotal")
    settled = ("request_id", "basis", "total", "subtotal", "surcharge", "line_items", "settled_at")
    for start in range(0, _RECORDS, 500):
        names = [f"{number:05}" for number in range(start, start + 500)]
        with ledger.transaction():
            records = [(name, "project-a", name, at, at, "pending", "0", "0") for name in names]
            ledger.insert(Insert("records", columns, "request_id"), records)
            figures = [(name, "reported", "0.3", "0.3", "0", "[]", at) for name in names]
            ledger.insert(Insert("settlements", settled, "request_id"), figures)


def test_memory_does_not_grow_with_the_number_of_settlements_and_new_counters(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_records, "_MAX_SUMMED", 50)
    monkeypatch.setattr(expected_counters, "_BATCH_SIZE", 50)
    monkeypatch.setattr(comparison, "_PAGE_SIZE", 50)
    monkeypatch.setattr(settlements, "_PAGE_SIZE", 50)
    sessions = CounterKind(Scope.AGENT_SESSION, Period.DAY)
    settle_many(budgets)
    # Caches of spenders have a size of their own.
    budgets.store.folding.fold()
    budgets.store.folding.fold_settlements()

    def count() -> Decimal:
        budgets.store.folding.register([sessions], NOW)
        return budgets.store.folding.correct(NOW)

    peak_bytes, difference = measure_peak_bytes(count)

    assert difference == 0
    assert sum(settled for settled, _ in budgets.figures(sessions).values()) == Decimal("0.3") * _RECORDS
    # All settlements at once would be some 2 MB, all counters 1.7.
    assert peak_bytes < 1_000_000
