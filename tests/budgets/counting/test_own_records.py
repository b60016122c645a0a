"""Records of this process and of others are counted once each, and free what requests have reserved from slices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from tests.budgets.conftest import CALLER, MONTH, NOW, BudgetsUnderTest, make_id, record, reservation, settlement, usd
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.budgets.counting import folding as folding_module
from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.database import Database

BUDGET = Budget(MONTH, Decimal(100))


class WritingProcess:
    """A process that writes records to the ledger, and counts."""

    def __init__(self, budgets: BudgetsUnderTest) -> None:
        self.slices = Slices()
        self._budgets = budgets
        self.store = open_store(budgets.address, budgets.locks("writing"), slices=self.slices)

    def write(self, *records: RequestRecord) -> None:
        """Write records in one transaction or several."""

        async def run() -> None:
            ledger = make_ledger(self._budgets.address)
            await ledger.open()
            for one in records:
                await ledger.begin(one.intent)
            await asyncio.gather(*(ledger.finish(one) for one in records))
            await ledger.close()

        asyncio.run(run())


@pytest.fixture
def process(budgets: BudgetsUnderTest) -> Iterator[WritingProcess]:
    """Return a process that has leased a slice, and reserved for the requests a to d."""
    process = WritingProcess(budgets)
    for _ in range(2):
        process.slices.take(reservation("ask", "0.5", BUDGET))
    process.store.sync_leases()
    for name in "abcd":
        assert process.slices.take(reservation(name, "0.5", BUDGET))
    yield process
    process.store.close()


def count(store: BudgetStore) -> None:
    """Count as the thread does."""
    store.folding.fold()
    store.sync_leases()


@contextmanager
def no_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if records are read again for their requests."""
    with monkeypatch.context() as patch:
        patch.delattr(ledger_records, "read_ended")
        yield


def test_requests_leave_their_slices_with_the_records_that_were_counted(
    budgets: BudgetsUnderTest, process: WritingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.write(record("a", "0.2"), record("b", "0.1"))
    process.write(record("c", "0.02"))

    with no_reads(monkeypatch):
        count(process.store)

    assert budgets.figures() == {"": usd("0.32", "0.5")}
    assert list(process.slices.requests) == [make_id("d")]
    assert process.store.folding.correct(NOW) == 0


def test_records_of_others_between_own_ones_are_counted(budgets: BudgetsUnderTest, process: WritingProcess) -> None:
    budgets.write(record("first of another", "1"))
    process.write(record("a", "0.2"), record("b", "0.1"))
    budgets.write(record("second of another", "2"))
    process.write(record("c", "0.02"))
    budgets.write(record("third of another", "4"))

    count(process.store)

    assert budgets.figures() == {"": usd("7.32", "0.5")}
    assert list(process.slices.requests) == [make_id("d")]
    assert process.store.folding.correct(NOW) == 0


def test_own_records_that_another_process_has_counted_are_not_counted_again(
    budgets: BudgetsUnderTest, process: WritingProcess
) -> None:
    process.write(record("a", "0.2"))
    budgets.store.folding.fold()
    process.write(record("b", "0.1"))

    count(process.store)

    assert budgets.figures() == {"": usd("0.3", "1.0")}
    assert sorted(process.slices.requests) == [make_id("c"), make_id("d")]
    assert process.store.folding.correct(NOW) == 0


def test_another_process_that_counts_all_leaves_nothing_reserved_here(
    budgets: BudgetsUnderTest, process: WritingProcess
) -> None:
    process.write(*(record(name, "0.1") for name in "abcd"))
    budgets.store.folding.fold()

    count(process.store)

    assert budgets.figures() == {"": usd("0.4", "0")}
    assert process.slices.requests == {}


def test_second_record_of_a_request_is_not_counted(budgets: BudgetsUnderTest, process: WritingProcess) -> None:
    process.write(record("a", "0.2"))
    process.write(record("a", "0.7"), record("b", "0.1"))

    count(process.store)

    assert budgets.figures() == {"": usd("0.3", "1.0")}
    assert process.store.folding.correct(NOW) == 0


def test_records_of_unknown_cost_stay_reserved(budgets: BudgetsUnderTest, process: WritingProcess) -> None:
    process.write(record("a", "0.2", basis=Basis.UNSETTLED), record("b", "0", basis=Basis.PENDING), record("c", "0.1"))

    count(process.store)
    assert budgets.figures() == {"": usd("0.3", "1.5")}  # a is held, b is pending, d is under way

    budgets.write(settlement("b", "0.3"))
    process.store.folding.fold_settlements()
    process.store.sync_leases()
    assert budgets.figures() == {"": usd("0.6", "1.0")}


def test_records_of_each_caller_are_counted_for_it(budgets: BudgetsUnderTest, process: WritingProcess) -> None:
    other = type(CALLER)("project-b", participant="eve")
    process.write(record("a", "0.2"), record("e", "0.4", other), record("b", "0.1"))

    count(process.store)

    settled = {state.project_id: state.settled for state in process.store.list_counters()}
    assert settled == {"project-a": Decimal("0.3"), "project-b": Decimal("0.4")}


def test_many_records_are_counted_some_at_a_time(
    budgets: BudgetsUnderTest, process: WritingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_records, "_MAX_GROUPED", 2)
    process.write(*(record(name, "0.1") for name in "abc"), record("other", "1"))

    assert process.store.folding.fold_batch()  # there are more
    process.store.sync_leases()
    assert budgets.figures() == {"": usd("0.2", "1.0")}
    assert not process.store.folding.fold_batch()
    process.store.sync_leases()

    assert budgets.figures() == {"": usd("1.3", "0.5")}
    assert list(process.slices.requests) == [make_id("d")]


def test_gap_of_pruned_records_is_passed_at_once(
    budgets: BudgetsUnderTest, process: WritingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_records, "_MAX_GROUPED", 2)
    process.write(record("a", "0.2"))
    for seq, name in ((1_000_000, "b"), (2_000_000, "c")):
        databases = budgets.store._databases
        databases.ledger.run(
            "INSERT INTO records (seq, request_id, project_id, participant, started_at, ended_at, basis, total, "  # noqa: S608
            f"subtotal) {databases.dialect.keep_numbers} "
            "VALUES (?, ?, 'project-a', 'ada', ?, ?, 'reported', '0.1', '0.1')",
            (seq, make_id(name), NOW.isoformat(), NOW.isoformat()),
        )

    folds = 1
    while process.store.folding.fold_batch():
        folds += 1

    assert folds <= 6
    process.store.sync_leases()
    assert budgets.figures() == {"": usd("0.4", "0.5")}


def test_records_that_another_process_counts_meanwhile_are_not_counted_again(
    budgets: BudgetsUnderTest, process: WritingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.write(record("a", "0.2"))
    read_cursor = folding_module.read_cursor

    def read_early(database: Database) -> int:
        found = read_cursor(database)
        if database is process.store._databases.budgets:
            monkeypatch.undo()
            budgets.write(record("other", "1"))
            budgets.store.folding.fold()
        return found

    monkeypatch.setattr(folding_module, "read_cursor", read_early)
    count(process.store)
    count(process.store)

    assert budgets.figures() == {"": usd("1.2", "1.5")}
    assert process.store.folding.correct(NOW) == 0
