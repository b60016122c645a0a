"""Settlements are counted in the order of their commits, some in each transaction, each once."""

from __future__ import annotations

import pytest

from tests.budgets.conftest import MONTH, NOW, BudgetsUnderTest, record, settlement, usd
from tornado_proxy.budgets.counting import folding, settlements
from tornado_proxy.budgets.counting.cursor import read_position
from tornado_proxy.domain.budgets.counter import CounterKind, Period, Scope
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database

DAY = CounterKind(Scope.PROJECT, Period.DAY)


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_PAGE_SIZE", 2)
    monkeypatch.setattr(folding, "_MAX_SETTLEMENTS", 2)


def write_pending(budgets: BudgetsUnderTest, *names: str) -> None:
    budgets.write(*(record(name, "0", basis=Basis.PENDING) for name in names))


def test_settlements_are_counted_a_page_at_a_time(budgets: BudgetsUnderTest) -> None:
    write_pending(budgets, *"abcde")
    budgets.store.folding.fold()
    budgets.write(
        settlement("a", "0.1"),
        settlement("b", "0.9", basis=Basis.ESTIMATED, final=False),
        settlement("b", "0.2"),
        settlement("c", "0.4"),
        settlement("d", "0.8", basis=Basis.ESTIMATED, final=False),
    )

    assert budgets.store.folding.fold_settlement_batch()
    assert budgets.figures() == {"": usd("1", "0")}  # a, and the figures at which b was given up
    assert budgets.store.folding.fold_settlement_batch()
    assert budgets.figures() == {"": usd("0.7", "0")}
    # A process that begins to count another kind counts the rest first.
    budgets.open("other").folding.register([DAY], NOW)
    assert not budgets.store.folding.fold_settlement_batch()

    # 0.1 + 0.2 + 0.4 + 0.8, and e is pending.
    assert budgets.figures(MONTH) == budgets.figures(DAY) == {"": usd("1.5", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_settlement_waits_for_its_record(budgets: BudgetsUnderTest) -> None:
    write_pending(budgets, "a")
    budgets.store.folding.fold()
    write_pending(budgets, "b")
    budgets.write(settlement("b", "0.2"), settlement("a", "0.1"))

    budgets.store.folding.fold_settlements()
    assert budgets.figures() == {"": usd("0", "0")}
    budgets.store.folding.fold()
    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.3", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_requests_that_are_pending_when_budgets_begin_are_counted_once(budgets: BudgetsUnderTest) -> None:
    write_pending(budgets, *"abc")
    budgets.write(settlement("a", "0.1"), settlement("b", "0.9", basis=Basis.ESTIMATED, final=False))
    for table in ("budget_meta", "budget_kinds", "budget_counters", "budget_reservations"):
        budgets.store._budgets.run(f"DELETE FROM {table}")  # noqa: S608  # names of ours

    store = budgets.open("first")
    store.folding.register([MONTH], NOW)
    assert budgets.figures() == {"": usd("1", "0")}
    budgets.write(settlement("b", "0.2"), settlement("c", "0.4"))
    store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.7", "0")}
    assert store.folding.correct(NOW) == 0


def test_settlements_that_an_earlier_version_has_counted_are_not_counted_again(budgets: BudgetsUnderTest) -> None:
    write_pending(budgets, *"abc")
    budgets.store.folding.fold()
    budgets.write(settlement("a", "0.1"), settlement("b", "0.9", basis=Basis.ESTIMATED, final=False))
    budgets.store.folding.fold_settlements()
    # It has no such position.
    budgets.store._budgets.run("DELETE FROM budget_meta WHERE key = 'changes cursor'")
    budgets.write(settlement("b", "0.2"), settlement("c", "0.4"))

    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.7", "0")}
    assert budgets.store.folding.correct(NOW) == 0


def test_process_that_counts_meanwhile_is_not_behind_afterwards(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = budgets.open("other")
    write_pending(budgets, *"abc")
    budgets.store.folding.fold()
    budgets.write(settlement("a", "0.1"))
    find_end = folding.find_written_end

    def let_other_count(ledger: Database, wait_for_writers: str) -> Position:
        end = find_end(ledger, wait_for_writers)
        monkeypatch.undo()
        budgets.write(settlement("b", "0.2"), settlement("c", "0.4"))
        other.folding.fold_settlements()
        return end

    monkeypatch.setattr(folding, "find_written_end", let_other_count)
    budgets.store.folding.fold_settlement_batch()

    assert read_position(budgets.store._databases.budgets).change == settlements.find_last(other._databases.ledger)
    assert budgets.store.folding.correct(NOW) == 0
    assert budgets.figures() == {"": usd("0.7", "0")}
