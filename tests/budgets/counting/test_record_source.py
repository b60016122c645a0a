"""Records that this process has just written are counted from memory, all others from the ledger, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.budgets.conftest import CALLER, MONTH, NOW, BudgetsUnderTest, make_id, record, reservation, settlement, usd
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.writer.committed_records import MAX_BATCHES, CommittedRecords

BUDGET = Budget(MONTH, Decimal(100))


class WritingProcess:
    """A process that writes records to the ledger, and counts."""

    def __init__(self, budgets: BudgetsUnderTest) -> None:
        self.committed = CommittedRecords()
        self.slices = Slices()
        self._budgets = budgets
        self.store = open_store(budgets.address, budgets.locks("writing"), slices=self.slices, committed=self.committed)

    def write(self, *records: RequestRecord) -> None:
        """Write records in one transaction or several."""

        async def run() -> None:
            ledger = make_ledger(self._budgets.address)
            ledger.committed = self.committed
            await ledger.open()
            for one in records:
                await ledger.begin(one.intent)
            await asyncio.gather(*(ledger.finish(one) for one in records))
            await ledger.close()

        asyncio.run(run())


@contextmanager
def no_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if a record is read from the ledger."""
    with monkeypatch.context() as patch:
        patch.delattr(ledger_records, "read_after")
        patch.delattr(ledger_records, "read_ended")
        yield


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


def test_own_records_are_counted_without_reading_them(
    tmp_path: Path, budgets: BudgetsUnderTest, process: WritingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(budgets.address, Path):
        pytest.skip("PostgreSQL does not tell the numbers of rows")
    process.write(record("a", "0.2"), record("b", "0.1"))
    process.write(record("c", "0.02"))

    with no_reads(monkeypatch):
        count(process.store)

    assert budgets.figures() == {"": usd("0.32", "0.5")}
    assert list(process.slices.requests) == [make_id("d")]
    assert process.store.folding.correct(NOW) == 0


def test_records_between_own_ones_are_read_from_the_ledger(budgets: BudgetsUnderTest, process: WritingProcess) -> None:
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


def test_only_the_last_transactions_are_kept() -> None:
    committed = CommittedRecords()
    row = tuple(str(number) for number in range(60))
    committed.add(range(1, 2), [row])
    assert committed.take() == []  # nothing follows them

    committed.is_followed = True
    committed.add(None, [row])
    for seq in range(1, MAX_BATCHES + 3):
        committed.add(range(seq, seq + 1), [row])

    assert [batch.seqs[0] for batch in committed.take()] == list(range(3, MAX_BATCHES + 3))
    assert committed.take() == []
