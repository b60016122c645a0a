"""Slices of counters: whatever processes do, and whichever dies, no limit is exceeded and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.budgets.conftest import (
    CALLER,
    MONTH,
    NOW,
    BudgetsUnderTest,
    create_ledger,
    make_id,
    record,
    reservation,
    settlement,
    usd,
)
from tests.budgets.test_keeper import BUDGET, figures, now, open_keeper, wait_for_figures
from tornado_proxy.budgets import dead_processes, deciding
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.budgets.counting.counters import CounterKey
from tornado_proxy.budgets.keeper import BudgetKeeper
from tornado_proxy.budgets.leases import slice as slice_module
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, CounterPlan, Period, Scope
from tornado_proxy.domain.budgets.refusal import BudgetRefusal, Refusal
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.request_id import begin_of_ids
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

LARGE = Budget(MONTH, Decimal(100))

#: The unit of slices.
USD = 10**12


def lease(store: BudgetStore, slices: Slices, budget: Budget = LARGE, bound: str = "0.5") -> None:
    """Ask twice, as requests do, and lease the amounts that they will need."""
    for number in range(2):
        assert not slices.take(reservation(f"ask {number}", bound, budget))
    store.sync_leases()


def open_leasing(budgets: BudgetsUnderTest, budget: Budget = LARGE) -> tuple[BudgetStore, Slices]:
    """Return the store and the slices of a process that has leased."""
    slices = Slices()
    store = budgets.open("leasing", slices=slices)
    lease(store, slices, budget)
    return store, slices


@pytest.fixture
def process(budgets: BudgetsUnderTest) -> tuple[BudgetStore, Slices]:
    """Return the store and the slices of a process that has leased."""
    return open_leasing(budgets)


def take_request(process: tuple[BudgetStore, Slices]) -> tuple[BudgetStore, Slices]:
    """Let the request "a" reserve 0.5 USD from the slice of a process; return the process."""
    assert process[1].take(reservation("a", "0.5", LARGE))
    return process


def raw_reserved(store: BudgetStore) -> Decimal:
    """Return the reserved amounts of the counters, with the leased ones."""
    rows = store._budgets.fetch_rows("SELECT reserved FROM budget_counters")
    return sum((Decimal(str(reserved)) for (reserved,) in rows), Decimal(0))


def test_request_reserves_from_a_slice_and_is_shown_as_reserved(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = process
    assert raw_reserved(store) == 10  # a tenth of 100 USD, less than 32 bounds
    assert budgets.figures() == {"": usd("0", "0")}

    assert slices.take(reservation("a", "0.5", LARGE))
    store.sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}
    (shown,) = store.iterate_reservations()
    assert (shown.request_id, shown.state, shown.total) == (make_id("a"), "open", Decimal("0.5"))
    budgets.write(record("a", "0.2"))
    store.folding.fold()
    store.sync_leases()
    assert budgets.figures() == {"": usd("0.2", "0")}
    assert list(store.iterate_reservations()) == []


def test_request_that_has_just_begun_is_reserved_and_not_shown(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = process
    at = datetime.now(UTC)
    begun = {name: begin_of_ids(at - timedelta(seconds=ago)) + name for name, ago in (("long", 60), ("just", -60))}
    for request_id in begun.values():
        assert slices.take(structs.replace(reservation("", "0.5", LARGE), request_id=request_id))

    store.sync_leases()

    (shown,) = store.iterate_reservations()
    assert shown.request_id == begun["long"]
    assert abs(shown.started_at - (at - timedelta(seconds=60))) < timedelta(milliseconds=1)
    assert budgets.figures() == {"": usd("0", "1")}


def test_request_that_another_process_counts_leaves_the_slice(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    budgets.write(record("other", "1"), record("a", "0.2"))
    budgets.store.folding.fold()

    store.sync_leases()

    assert slices.requests == {}
    assert budgets.figures() == {"": usd("1.2", "0")}


def test_released_request_leaves_the_slice(budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]) -> None:
    store, slices = take_request(process)
    assert slices.release(make_id("a"))
    assert not slices.release(make_id("a"))
    store.sync_leases()
    assert budgets.figures() == {"": usd("0", "0")}


def test_slice_is_given_back_when_no_request_takes_from_it(
    process: tuple[BudgetStore, Slices], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = process
    monkeypatch.setattr(slice_module, "_IDLE_S", 0.0)
    store.sync_leases()
    assert raw_reserved(store) == 0
    assert store.leasing.read_idle() == {}


def test_slice_of_a_budget_with_much_left_is_kept_in_a_pause(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, slices = open_leasing(budgets, Budget(MONTH, Decimal(1_000_000)))
    monkeypatch.setattr(slice_module, "_IDLE_S", 0.0)
    store.sync_leases()
    assert raw_reserved(store) == 128  # 256 bounds
    assert store.is_far

    # Another process has spent it to 5 USD: a tenth is less than 256 bounds.
    budgets.write(record("a", "999995"))
    store.folding.fold()
    slices.forget()
    store.sync_leases()
    assert raw_reserved(store) == 0
    assert not store.is_far


def test_slice_grows_with_its_requests(budgets: BudgetsUnderTest) -> None:
    budget = Budget(MONTH, Decimal(1_000_000))
    store, slices = open_leasing(budgets, budget)

    for number in range(100):
        assert slices.take(reservation(f"{number}", "0.5", budget))
    store.sync_leases()

    assert raw_reserved(store) == 50 + 200  # 100 bounds are used, and four times as many are idle


def test_slices_learn_of_all_requests_of_a_spender_and_of_the_largest(budgets: BudgetsUnderTest) -> None:
    both = tuple(
        Budget(CounterKind(Scope.PROJECT, period, amount=amount), Decimal(1_000_000))
        for period, amount in ((Period.MONTH, Amount.TOTAL), (Period.DAY, Amount.SUBTOTAL))
    )
    budgeted = reservation("", "0", *both).budgeted
    slices = Slices()
    store = budgets.open("leasing", slices=slices)

    def take(number: int) -> bool:
        usd = Decimal(number % 10 + 1)
        return slices.take(Reservation(make_id(f"{number}"), budgeted, CostBound(usd * 2, usd, 0), NOW))

    assert [take(number) for number in (109, 119)] == [False, False]
    assert [leased.idle for leased in slices.slices.values()] == [0, 0]  # both amounts are put back
    store.sync_leases()
    taken = [take(number) for number in range(100)]
    store.sync_leases()

    assert all(taken)
    total, subtotal = slices.slices.values()
    assert (total.need, total.bound, total.used) == (100, 20 * USD, 1100 * USD)
    assert (subtotal.need, subtotal.bound, subtotal.used) == (100, 10 * USD, 550 * USD)


def test_request_that_finds_one_slice_short_takes_from_none(budgets: BudgetsUnderTest) -> None:
    large = Budget(CounterKind(Scope.PROJECT, Period.DAY, amount=Amount.SUBTOTAL), Decimal(1_000_000))
    budgeted = reservation("", "0", LARGE, large).budgeted
    slices = Slices()
    store = budgets.open("leasing", slices=slices)
    for number in range(2):
        slices.take(Reservation(make_id(f"{number}"), budgeted, CostBound(Decimal("0.5"), Decimal("0.4"), 0), NOW))
    store.sync_leases()
    before = {key: leased.idle for key, leased in slices.slices.items()}
    assert all(before.values())

    assert not slices.take(Reservation("large", budgeted, CostBound(Decimal(20), Decimal(15), 0), NOW))

    assert {key: leased.idle for key, leased in slices.slices.items()} == before


def test_requests_after_a_pause_find_the_slice_of_a_counter_with_much_left(budgets: BudgetsUnderTest) -> None:
    much = Budget(MONTH, Decimal(100_000))
    store, slices = open_leasing(budgets, much)
    (leased,) = slices.slices.values()

    leased.asked_at -= 10
    store.sync_leases()
    assert slices.take(reservation("a", "0.5", much))
    store.sync_leases()
    assert slices.take(reservation("b", "0.5", much))


def test_slice_that_was_given_back_is_leased_again(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, slices = process
    first = reservation("first", "0.5", LARGE)

    def take(name: str) -> bool:
        return slices.take(structs.replace(first, request_id=make_id(name)))

    assert take("first")
    budgets.write(record("first", "0.2"))
    store.folding.fold()
    with monkeypatch.context() as patch:
        patch.setattr(slice_module, "_IDLE_S", 0.0)
        store.sync_leases()
        store.sync_leases()
    assert slices.slices == {}

    assert not take("second")
    assert not take("third")
    store.sync_leases()

    assert take("fourth")
    store.sync_leases()
    assert budgets.figures() == {"": usd("0.2", "0.5")}


def test_requests_that_share_a_bound_are_counted_each() -> None:
    slices = Slices()
    bound = slices.divide(BudgetedSpender(Spender("project-a"), (LARGE,)), CostBound(Decimal(2), Decimal(1)), NOW)
    for number in range(3):
        assert not slices.take_sliced(f"{number}", bound)
    (one,) = slices.slices.values()
    assert (one.asks, one.new_asks, one.asked_bound) == (3, 3, 2 * USD)

    slices.renew(time.monotonic())
    slices.grant({one.key: Decimal(10)})
    assert [slices.take_sliced(f"{number}", bound) for number in range(6)] == [True] * 5 + [False]
    slices.count(["0", "1", "unknown"])
    assert (one.granted, one.idle, one.used) == (6 * USD, 0, 6 * USD)
    assert slices.release("2")
    assert (one.idle, one.used) == (2 * USD, 4 * USD)


def test_bound_holds_within_an_hour_and_while_its_price_does() -> None:
    slices, bound = Slices(), CostBound(Decimal(2), Decimal(1))
    budgeted, at = BudgetedSpender(Spender("project-a"), (LARGE,)), NOW.replace(minute=30)
    whole = slices.divide(budgeted, bound, at)
    assert (whole.begin, whole.end) == (NOW, NOW + timedelta(hours=1))
    since, until = at - timedelta(microseconds=1), at + timedelta(microseconds=1)
    part = whole.narrow(since, until)
    assert (part.begin, part.end) == (since, until)
    wider = whole.narrow(at - timedelta(days=1), at + timedelta(days=1))
    assert (wider.begin, wider.end) == (whole.begin, whole.end)


def test_amounts_are_rounded_against_the_request() -> None:
    assert slice_module.to_units_up(Decimal("1.0000000000001")) == USD + 1
    assert slice_module.to_units_down(Decimal("1.9999999999999")) == 2 * USD - 1
    assert slice_module.to_units_down(Decimal("-0.0000000000001")) == -1
    assert slice_module.to_usd(USD + 1) == Decimal("1.000000000001")


def test_claims_of_the_last_callers_are_kept() -> None:
    slices = Slices()
    spenders = [Spender("project-a", f"participant {number}") for number in range(9000)]
    bound = CostBound(Decimal(1), Decimal(1))
    for number, spender in enumerate(spenders):
        slices.take(Reservation(f"r{number}", BudgetedSpender(spender, (LARGE,)), bound, NOW))

    assert 0 < len(slices._claims) <= 4096


def test_slice_of_a_higher_limit_is_not_used_for_a_lower_one(process: tuple[BudgetStore, Slices]) -> None:
    store, slices = process
    lowered = replace(LARGE, limit=Decimal(1))
    assert not slices.take(reservation("a", "0.5", lowered))
    store.sync_leases()
    assert raw_reserved(store) == 0  # a tenth of 1 USD is less than a request can cost
    assert not slices.take(reservation("b", "0.5", LARGE))


def test_lease_is_a_tenth_of_what_all_processes_have_left(budgets: BudgetsUnderTest) -> None:
    assert budgets.reserve("of another process", "80", "100") is None
    open_leasing(budgets)
    assert raw_reserved(budgets.store) == 82


def test_lease_is_a_tenth_of_what_requests_under_way_leave(process: tuple[BudgetStore, Slices]) -> None:
    store, slices = process
    for number in range(10):
        assert slices.take(reservation(f"{number}", "0.5", LARGE))

    store.sync_leases()

    assert raw_reserved(store) == Decimal("14.5")  # 5 USD in use, and a tenth of the other 95


def test_one_large_request_does_not_end_the_slices_of_small_ones(process: tuple[BudgetStore, Slices]) -> None:
    store, slices = process
    assert not slices.take(reservation("large", "50", LARGE))
    store.sync_leases()
    assert raw_reserved(store) == 0  # a tenth of 100 USD is less than the large request can cost
    for one in slices.slices.values():
        one.denied_at = float("-inf")
    lease(store, slices)
    assert slices.take(reservation("small", "0.5", LARGE))


def test_slice_is_not_used_when_the_database_has_not_been_seen_for_long(process: tuple[BudgetStore, Slices]) -> None:
    store, slices = process
    slices._valid_until = time.monotonic() - 1
    assert not slices.take(reservation("a", "0.5", LARGE))
    store.sync_leases()
    assert slices.take(reservation("a", "0.5", LARGE))


@pytest.mark.parametrize("basis", [Basis.UNSETTLED, Basis.PENDING])
def test_request_of_unknown_cost_is_held_at_its_bound(
    basis: Basis, budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    budgets.write(record("a", "0", basis=basis))
    budgets.store.folding.fold()
    store.sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}
    assert slices.requests == {}
    if basis is Basis.PENDING:
        budgets.write(settlement("a", "0.3"))
        budgets.store.folding.fold_settlements()
        assert budgets.figures() == {"": usd("0.3", "0")}
        assert list(store.iterate_reservations()) == []


def test_pending_request_that_is_settled_before_its_process_knows_holds_nothing(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, _ = take_request(process)
    budgets.write(record("a", "0", basis=Basis.PENDING))
    budgets.store.folding.fold()
    budgets.write(settlement("a", "0.3"))
    budgets.store.folding.fold_settlements()

    store.sync_leases()

    assert budgets.figures() == {"": usd("0.3", "0")}


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("hold", [True, False])
def test_slices_of_a_dead_process_are_freed_and_its_lost_requests_held(
    *, hold: bool, budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = process
    for name in ("recorded", "lost", "never sent"):
        assert slices.take(reservation(name, "0.5", LARGE))
    store.sync_leases()
    dead = store._databases.locks.writer_id
    budgets.write(record("recorded", "0.2"))
    leave_intent(store, "lost")
    living = budgets.store
    living.folding.hold = hold

    living.free_dead()
    assert raw_reserved(living) > 1  # it lives

    journal = store._databases.locks.journal_path(dead)
    budgets.kill(store)
    journal.touch()
    living.free_dead()
    assert raw_reserved(living) > 1  # records can be in its files

    journal.unlink()
    living.free_dead()

    assert budgets.figures() == {"": usd("0.2", "0.5" if hold else "0")}
    assert raw_reserved(living) == Decimal("0.5" if hold else 0)
    assert [(one.request_id, one.state) for one in living.iterate_reservations()] == [(make_id("lost"), "held")] * hold


def test_process_of_this_machine_is_dead_when_its_lock_file_is_free(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, _ = process
    with store._databases.locks.hold_opening_lock():
        store._databases.locks.register()
    store._databases.liveness.release()
    budgets.store.free_dead()
    assert raw_reserved(budgets.store) == 10  # its lock is taken, or it can be of another machine

    log = store._databases.locks.intent_log_path(store._databases.locks.writer_id, 0)
    log.touch()
    store._databases.locks.close(keep_files=True)
    budgets.store.free_dead()
    assert raw_reserved(budgets.store) == 10  # its log can have records

    # The ledger has them: the lock file goes, too.
    store._databases.locks.delete_files(store._databases.locks.writer_id)
    budgets.store.free_dead()

    assert raw_reserved(budgets.store) == 0


def test_process_whose_lock_is_free_lives_on_for_a_while(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessLocks, "grace_s", 10.0)  # as on PostgreSQL, where it can be of another machine
    clock = [100.0]
    monkeypatch.setattr(dead_processes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    store, _ = process
    budgets.kill(store)

    for second in (100, 105, 109):
        clock[0] = second
        budgets.store.free_dead()
    assert raw_reserved(budgets.store) == 10
    store.register()  # its connection was broken
    clock[0] = 111
    budgets.store.free_dead()
    budgets.kill(store)
    clock[0] = 120
    budgets.store.free_dead()
    assert raw_reserved(budgets.store) == 10

    clock[0] = 130
    budgets.store.free_dead()

    assert raw_reserved(budgets.store) == 0


@pytest.mark.usefixtures("no_grace")
def test_slices_that_others_have_freed_are_leased_again(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, _ = take_request(process)
    store.sync_leases()
    budgets.kill(store)
    budgets.store.free_dead()
    assert budgets.figures() == {"": usd("0", "0")}

    store.leasing._renewed_at = float("-inf")
    store.sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}


@pytest.mark.usefixtures("no_grace")
def test_process_that_was_thought_dead_reserves_its_requests_once(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    store.sync_leases()
    leave_intent(store, "a")
    budgets.kill(store)
    budgets.store.free_dead()
    assert [(one.request_id, one.state) for one in budgets.store.iterate_reservations()] == [(make_id("a"), "held")]

    returned = budgets.open("leasing", slices=slices)
    slices.forget()
    returned.sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}
    assert [one.state for one in returned.iterate_reservations()] == ["open"]
    budgets.write(record("a", "0.2"))
    returned.folding.fold()
    returned.give_back()
    assert budgets.figures() == {"": usd("0.2", "0")}
    assert raw_reserved(returned) == 0


def reopen(budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices) -> BudgetStore:
    """Connect again as the keeper does after a fault."""
    store.close()
    returned = open_store(budgets.address, store._databases.locks, slices=slices)
    budgets.opened[budgets.opened.index(store)] = returned
    slices.forget()
    return returned


def test_request_that_is_counted_while_its_process_has_no_connection_leaves_the_slice(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    budgets.write(record("a", "0.2"))
    budgets.store.folding.fold()

    reopen(budgets, store, slices).sync_leases()

    assert slices.requests == {}
    assert budgets.figures() == {"": usd("0.2", "0")}


def test_request_of_unknown_cost_is_held_after_a_fault(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, slices = take_request(process)
    budgets.write(record("a", "0", basis=Basis.UNSETTLED))
    store.folding.fold()
    with monkeypatch.context() as patch:
        patch.setattr(store.leasing, "_write_leases", fail)
        with pytest.raises(StoreError):
            store.sync_leases()

    reopen(budgets, store, slices).sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}


def test_pending_request_whose_commit_failed_in_its_process_alone_is_held_once(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    budgets.write(record("a", "0", basis=Basis.PENDING))
    store.folding.fold()
    to_hold = dict(slices.to_hold)
    assert list(to_hold) == [make_id("a")]
    store.sync_leases()
    slices.to_hold.update(to_hold)  # as if the connection had broken in COMMIT

    reopen(budgets, store, slices).sync_leases()

    assert budgets.figures() == {"": usd("0", "0.5")}


def test_request_that_was_shown_before_a_fault_is_not_shown_when_it_has_ended(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices]
) -> None:
    store, slices = take_request(process)
    store.sync_leases()
    assert [one.request_id for one in store.iterate_reservations()] == [make_id("a")]
    budgets.write(record("a", "0.2"))

    returned = reopen(budgets, store, slices)
    returned.folding.fold()
    returned.sync_leases()

    assert list(returned.iterate_reservations()) == []


def fail(*_: object) -> NoReturn:
    """Raise the fault of a database."""
    raise StoreError("the disk is full")


def leave_intent(store: BudgetStore, name: str) -> None:
    """Write the intent of a request that can cost 0.5 USD."""
    store._databases.ledger.run(
        "INSERT INTO intents (request_id, writer, project_id, participant, started_at, bound_total, bound_subtotal) "
        "VALUES (?, ?, ?, ?, ?, '0.5', '0.4')",
        (make_id(name), store._databases.locks.writer_id, CALLER.project_id, CALLER.participant, NOW.isoformat()),
    )


async def take_from_slices(keeper: BudgetKeeper, budget: Budget, bound: str, names: Iterator[int]) -> str:
    """Send requests until one has reserved from a slice; all others are released; return its id."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        entry = reservation(f"r{next(names)}", bound, budget, at=now())
        if keeper.take(entry):
            return entry.request_id
        assert await keeper.reserve(entry) is None
        keeper.release(entry.request_id)
        await asyncio.sleep(0.01)
    raise AssertionError("no slice was leased")


def test_idle_slice_of_another_process_refuses_no_request(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is given back because it is recalled, however long that takes on a busy machine.
    monkeypatch.setattr(slice_module, "_IDLE_S", 1000)
    monkeypatch.setattr(deciding, "_ANSWER_S", 60)
    strict = Budget(MONTH, Decimal(1), strict=True)

    async def run() -> None:
        names = itertools.count()
        async with open_keeper(budgets) as first, open_keeper(budgets, writer="second") as second:
            await take_from_slices(first, strict, "0.01", names)
            # 0.01 is reserved; the rest of the slice of the first process is idle, and in the way.
            large = reservation("large", "0.99", strict, at=now())
            assert not second.take(large)
            assert await second.reserve(large) is None
            await wait_for_figures(second, "0", "1.00")
            refusal = await second.reserve(reservation("more", "0.01", strict, at=now()))
            assert isinstance(refusal, BudgetRefusal)
            assert not refusal.exhausted
            assert (await figures(second))[1] == 1

    asyncio.run(run())


def test_recall_that_comes_while_a_slice_is_written_is_answered(
    budgets: BudgetsUnderTest, process: tuple[BudgetStore, Slices], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, slices = take_request(process)
    keys, list_recalled = list(slices.slices), store.leasing._list_recalled
    recalls: set[tuple[str, CounterKey]] = set()

    def list_before_the_recall() -> list[CounterKey]:
        found = list_recalled()
        recalls.update(budgets.store.leasing.recall(keys))
        return found

    monkeypatch.setattr(store.leasing, "_list_recalled", list_before_the_recall)
    store.sync_leases()

    assert len(recalls) == 1
    assert budgets.store.leasing.is_answered(recalls)
    assert raw_reserved(store) == Decimal("0.5")


def test_process_that_does_not_answer_refuses_for_two_seconds_only(budgets: BudgetsUnderTest) -> None:
    slices = Slices()
    store = budgets.open("hangs", slices=slices)
    at = now()
    for number in range(2):
        slices.take(reservation(f"ask {number}", "0.01", BUDGET, at=at))
    store.sync_leases()
    strict = replace(BUDGET, strict=True)

    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            began = time.monotonic()
            refusal = await keeper.reserve(reservation("large", "1", strict, at=now()))
            assert isinstance(refusal, BudgetRefusal)
            assert not refusal.exhausted
            assert 1.9 < time.monotonic() - began < 10

    asyncio.run(run())


# Arbitrary interleavings of three processes on one ledger.

LIMIT = Decimal(5)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("burst"), st.integers(0, 2), st.sampled_from(["0.01", "0.1", "0.2", "1.5"])),
        st.tuples(st.just("sync"), st.integers(0, 2), st.just("")),
        st.tuples(st.just("end"), st.integers(0, 50), st.sampled_from(["0", "0.5", "1"])),
        st.tuples(st.sampled_from(["fold", "sync", "fault"]), st.integers(0, 2), st.just("")),
        st.tuples(st.sampled_from(["release", "kill"]), st.integers(0, 50), st.just("")),
    ),
    max_size=40,
)


@dataclass
class World:
    """Three processes, and what their requests can cost and have cost."""

    budgets: BudgetsUnderTest
    budget: Budget
    processes: list[tuple[BudgetStore, Slices]] = field(default_factory=list)
    under_way: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    spent: Decimal = Decimal(0)
    dearest: Decimal = Decimal(0)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def open(self, number: int) -> None:
        """Start the process with a number."""
        slices = Slices()
        store = self.budgets.open(f"{number}-{next(self.numbers)}", slices=slices)
        slices.renew(time.monotonic())
        self.processes[number : number + 1] = [(store, slices)]

    def burst(self, number: int, bound: str) -> None:
        """Send some requests, as many as make a lease worthwhile."""
        for _ in range(4):
            self.request(number, bound)
            self.check()

    def request(self, number: int, bound: str) -> None:
        """Reserve as the keeper does; a refusal must be for money that is spent or reserved."""
        _, slices = self.processes[number]
        entry = reservation(f"r{next(self.numbers)}", bound, self.budget)
        is_admitted = slices.take(entry) or self.decide(number, entry) is None
        if is_admitted:
            self.under_way[entry.request_id] = number, entry.bound.total
        else:
            taken = self.spent + sum((amount for _, amount in self.under_way.values()), Decimal(0))
            assert taken + entry.bound.total > LIMIT if self.budget.strict else taken >= LIMIT

    def decide(self, number: int, entry: Reservation) -> Refusal | None:
        """Return the decision of the database, after all processes have given their idle parts back."""
        store, slices = self.processes[number]
        (refusal,) = store.reserve([entry])
        if refusal is None:
            return None
        keys = list(slices.slices)
        recalls = store.leasing.recall(keys)
        slices.return_idle(keys)
        for other, _ in self.processes:
            other.folding.fold()
            other.sync_leases()
        assert store.leasing.is_answered(recalls)
        refusal = store.reserve([entry])[0]
        for _, others in self.processes:
            for one in others.slices.values():  # as if seconds had passed: they lease again
                one.recalled_at = one.denied_at = float("-inf")
        return refusal

    def end(self, number: int, part: str) -> None:
        """Record that a request has cost a part of its bound."""
        if self.under_way:
            request_id = list(self.under_way)[number % len(self.under_way)]
            _, bound = self.under_way.pop(request_id)
            cost = bound * Decimal(part)
            self.spent += cost
            self.dearest = max(self.dearest, cost)
            self.processes[0][0]._databases.ledger.run(
                "INSERT INTO records (request_id, project_id, participant, started_at, ended_at, basis, total, "
                "subtotal) VALUES (?, 'project-a', 'ada', ?, ?, 'reported', ?, ?)",
                (request_id, NOW.isoformat(), NOW.isoformat(), f"{cost:f}", f"{cost:f}"),
            )

    def release(self, number: int, _: str = "") -> None:
        """Free a request that is not sent."""
        if self.under_way:
            request_id = list(self.under_way)[number % len(self.under_way)]
            owner, _bound = self.under_way.pop(request_id)
            store, slices = self.processes[owner]
            if not slices.release(request_id):
                store.release([request_id])

    def kill(self, number: int, _: str = "") -> None:
        """Kill a process; its requests were not sent."""
        number %= 3
        self.budgets.kill(self.processes[number][0])
        self.open(number)
        self.under_way = {name: one for name, one in self.under_way.items() if one[0] != number}
        self.processes[number][0].free_dead()

    def fault(self, number: int, _: str = "") -> None:
        """Let a process lose its connections, and connect again."""
        store, slices = self.processes[number]
        self.processes[number] = reopen(self.budgets, store, slices), slices

    def fold(self, number: int, _: str = "") -> None:
        """Count records in a process."""
        self.processes[number][0].folding.fold()

    def sync(self, number: int, _: str = "") -> None:
        """Lease, trim and give back in a process."""
        self.processes[number][0].sync_leases()

    def check(self) -> None:
        """Check the laws that hold at any time."""
        reserved = sum((amount for _, amount in self.under_way.values()), Decimal(0))
        assert raw_reserved(self.processes[0][0]) >= reserved
        if self.budget.strict:
            assert self.spent + reserved <= LIMIT
        assert self.spent < LIMIT + self.dearest or self.spent == 0

    def finish(self) -> None:
        """End everything; then nothing is reserved, and the settled amounts are the sums of the records."""
        while self.under_way:
            self.end(0, "0.5")
        for store, slices in self.processes:
            store.folding.fold()
            slices.return_idle(list(slices.slices))
            store.sync_leases()
        assert raw_reserved(self.processes[0][0]) == 0
        assert self.budgets.figures().get("", usd("0", "0")) == (self.spent, Decimal(0))
        assert self.processes[0][0].leasing.read_idle() == {}
        assert self.processes[0][0].folding.correct(NOW) == 0


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, strict=st.booleans())
def test_no_interleaving_of_processes_exceeds_a_limit_or_loses_money(
    operations: list[tuple[str, int, str]], *, strict: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "ledger.db"
        create_ledger(address)
        world = World(BudgetsUnderTest(address), Budget(MONTH, LIMIT, strict=strict))
        for number in range(3):
            world.open(number)
        world.budgets.store.follow(CounterPlan((MONTH,)), NOW)
        try:
            for name, number, value in operations:
                getattr(world, name)(number, value)
                world.check()
            world.finish()
        finally:
            world.budgets.close()
