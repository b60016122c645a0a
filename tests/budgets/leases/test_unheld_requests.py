"""Requests of unknown cost whose process dies before it holds their bounds, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from decimal import Decimal

import pytest
from msgspec import structs

from tests.budgets.conftest import CALLER, MONTH, BudgetsUnderTest, cost, intent, make_id, reservation, settlement, usd
from tests.budgets.leases.test_slices import lease, raw_reserved
from tests.ledger.sample_records import make_record
from tornado_proxy.budgets.leases import unheld_requests
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.cost import StatedBound
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger

pytestmark = pytest.mark.usefixtures("no_grace")

LARGE = Budget(MONTH, Decimal(100))


def bounded(name: str, basis: Basis, total: str = "0") -> RequestRecord:
    """Return the record of a request that can cost 0.5 USD, 0.4 of them at the provider."""
    bound = StatedBound("0.5", "0.4")
    return make_record(structs.replace(intent(name), bound=bound), basis=basis, cost=cost(total))


@pytest.fixture
def process(budgets: BudgetsUnderTest) -> tuple[BudgetStore, Slices]:
    """Return the store and the slices of a process that has leased, and has the request "a" under way."""
    slices = Slices()
    store = budgets.open("leasing", slices=slices)
    lease(store, slices)
    assert slices.take(reservation("a", "0.5", LARGE))
    return store, slices


def list_bounds(store: BudgetStore) -> list[str]:
    """Return the names of the requests whose bounds are in the ledger."""
    rows = store._databases.ledger.fetch_rows("SELECT request_id FROM unheld_bounds ORDER BY request_id")
    return [str(request_id).removeprefix(make_id("")) for (request_id,) in rows]


@pytest.mark.parametrize("is_moved", [False, True])
def test_lost_request_is_held_at_its_last_bound(is_moved: bool, budgets: BudgetsUnderTest) -> None:
    async def begin_twice() -> None:
        ledger = make_ledger(budgets.address)
        await ledger.open()
        for total in ("0.1", "0.5"):
            await ledger.begin(structs.replace(intent("a"), bound=StatedBound(total, total)))
            if is_moved:
                # The intents of a full log are written to the database.
                await ledger.close()
                ledger = make_ledger(budgets.address)
                await ledger.open()
        await ledger.close()

    asyncio.run(begin_twice())
    budgets.write()  # opens the ledger, which writes the intents of the dead process
    rows = budgets.store._databases.ledger.fetch_rows("SELECT bound_total FROM intents")

    assert rows == [("0.5",)]


@pytest.mark.parametrize(
    ("basis", "hold", "held"),
    [
        pytest.param(Basis.UNSETTLED, True, "0.5", id="unsettled"),
        pytest.param(Basis.UNSETTLED, False, "0", id="unsettled, hold_unsettled: false"),
        pytest.param(Basis.PENDING, True, "0.5", id="pending"),
        pytest.param(Basis.PENDING, False, "0.5", id="pending, hold_unsettled: false"),
        pytest.param(Basis.REPORTED, True, "0", id="known cost"),
    ],
)
def test_request_of_unknown_cost_is_held_when_its_process_has_died_after_the_record(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices], *, basis: Basis, hold: bool, held: str
) -> None:
    living = budgets.store
    living.folding.hold = hold
    # The ledger's writer is closed after this, as if it had died with the process.
    budgets.write(bounded("a", basis))
    living.folding.fold()
    budgets.kill(process[0])
    assert raw_reserved(living) == 10  # its slice

    living.free_dead()
    living.free_dead()

    assert budgets.figures() == {"": usd("0", held)}
    assert raw_reserved(living) == Decimal(held)
    assert list_bounds(living) == []


def test_pending_request_of_a_dead_process_is_held_until_it_is_settled(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    budgets.write(bounded("a", Basis.PENDING))
    budgets.kill(process[0])
    budgets.store.free_dead()
    assert budgets.figures() == {"": usd("0", "0.5")}

    budgets.write(settlement("a", "0.3"))
    budgets.store.folding.fold_settlements()
    budgets.store.free_dead()

    assert budgets.figures() == {"": usd("0.3", "0")}


def test_request_that_is_settled_before_its_process_is_found_dead_is_not_held(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    budgets.write(bounded("a", Basis.PENDING), settlement("a", "0.3"))
    budgets.kill(process[0])

    budgets.store.free_dead()
    budgets.store.folding.fold_settlements()

    assert budgets.figures() == {"": usd("0.3", "0")}


def test_bounds_are_forgotten_when_their_own_process_holds_them(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, _ = process
    budgets.write(bounded("a", Basis.UNSETTLED), bounded("known", Basis.REPORTED, "0.2"))
    assert list_bounds(store) == ["a"]
    store._databases.ledger.run("UPDATE unheld_bounds SET writer = ?", (store._databases.locks.writer_id,))
    store.folding.fold()
    store.leasing.forget_held()
    assert list_bounds(store) == ["a"]  # it is counted, and not held yet

    store.sync_leases()
    store.leasing.forget_held()

    assert list_bounds(store) == []
    assert budgets.figures() == {"": usd("0.2", "0.5")}
    budgets.kill(store)
    budgets.store.free_dead()
    assert budgets.figures() == {"": usd("0.2", "0.5")}


def test_bounds_are_forgotten_some_at_a_time(budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else other writers of the ledger would wait for the end of a statement that deletes many."""
    monkeypatch.setattr(unheld_requests, "_BATCH_SIZE", 2)
    budgets.write(*(bounded(name, Basis.UNSETTLED) for name in "abcdef"))
    ledger = budgets.store._databases.ledger
    ledger.run("UPDATE unheld_bounds SET writer = 'other' WHERE request_id = ?", (make_id("b"),))
    (writer,) = unheld_requests.list_writers(ledger) - {"other"}
    ((last_seq,),) = ledger.fetch_rows("SELECT seq FROM records WHERE request_id = ?", (make_id("e"),))
    watcher = budgets.open("watching")
    left = []
    transaction = ledger.transaction

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        left.append("".join(list_bounds(watcher)))
        with transaction():
            yield

    monkeypatch.setattr(ledger, "transaction", watched)
    unheld_requests.forget_bounds(ledger, writer, int(str(last_seq)))

    assert left == ["abcdef", "bdef"]
    assert list_bounds(watcher) == ["b", "f"]  # of another process, and of a record that is not counted


def test_bound_without_a_budget_is_not_kept(budgets: BudgetsUnderTest) -> None:
    budgets.write(make_record(intent("free", CALLER), basis=Basis.UNSETTLED, cost=cost("0")))

    assert list_bounds(budgets.store) == []
