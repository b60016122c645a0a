"""A kind of counter begins with the sums of the ledger, in several transactions, whichever process dies meanwhile."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.budgets.conftest import CALLER, NOW, BudgetsUnderTest, record, usd
from tornado_proxy.budgets.counting import comparison
from tornado_proxy.budgets.counting.counters import make_key
from tornado_proxy.budgets.counting.folding import Folding
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope

PEOPLE = CounterKind(Scope.PARTICIPANT, Period.DAY)
NAMES = ("ann", "ben", "cid", "dan", "eve", "flo")


def spend(budgets: BudgetsUnderTest, number: int) -> None:
    """Write a request of 0.1 USD of each participant."""
    callers = [replace(CALLER, participant=name) for name in NAMES]
    budgets.write(*(record(f"{caller.participant}{number}", "0.1", caller) for caller in callers))


def register_and_die(budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """Register the kind in a process that is killed after it has written a number of pages."""
    monkeypatch.setattr(comparison, "_PAGE_SIZE", 2)
    child = os.fork()
    if child == 0:
        try:
            _correct_some(monkeypatch, pages)
            budgets.open("dying").folding.register([PEOPLE], NOW)
        finally:
            os._exit(1)  # it has not been killed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _correct_some(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    correct_page, left = Folding._correct_page, [None] * pages

    def correct(*arguments: object) -> Decimal:
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left.pop()
        return correct_page(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Folding, "_correct_page", correct)


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_kind_whose_process_was_killed_is_completed_by_the_next_one(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    spend(budgets, 1)
    budgets.store.folding.fold()
    key = make_key(PEOPLE, "project-a", "participant dan", NOW)
    values = (*key.values, key.period_end, "0", "0.4")
    budgets.store._budgets.run(f"INSERT INTO budget_counters VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608  # placeholders
    register_and_die(budgets, monkeypatch, pages)
    spend(budgets, 2)
    budgets.store.folding.fold()
    # The comparison leaves it alone: it differs by no fault.
    assert budgets.store.folding.correct(NOW) == 0
    spend(budgets, 3)

    budgets.store.folding.register([PEOPLE], NOW)

    assert budgets.figures(PEOPLE) == {
        f"participant {name}": usd("0.3", "0.4" if name == "dan" else "0") for name in NAMES
    }
    budgets.store._budgets.run("UPDATE budget_counters SET settled = '0' WHERE subject = 'participant eve'")
    assert budgets.store.folding.correct(NOW) == Decimal("0.3")  # it is compared as the others


def test_records_that_are_counted_while_a_kind_begins_are_counted_once(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_PAGE_SIZE", 2)
    spend(budgets, 1)
    budgets.store.folding.fold()
    other = budgets.open("other")
    correct_page, numbers = Folding._correct_page, iter(range(2, 100))

    def count_first(*arguments: object) -> Decimal:
        spend(budgets, next(numbers))
        other.folding.fold()
        return correct_page(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Folding, "_correct_page", count_first)
    budgets.store.folding.register([PEOPLE], NOW)

    written = next(numbers) - 1
    assert written == 4  # three pages
    assert budgets.figures(PEOPLE) == {f"participant {name}": usd("0.4", "0") for name in NAMES}
    assert budgets.store.folding.correct(NOW) == 0
