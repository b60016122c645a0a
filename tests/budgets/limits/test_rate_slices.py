"""Units of limits that processes take in advance: no limit is exceeded by more than 1 %, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.budgets.conftest import BudgetsUnderTest, create_ledger
from tests.budgets.limits.test_rates import claim, reservation, take
from tests.budgets.test_keeper import open_keeper
from tornado_proxy.budgets import deciding
from tornado_proxy.budgets.keeper import BudgetKeeper
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.limits import rate_leasing, rate_slices, rates, token_bucket
from tornado_proxy.budgets.limits.rate_slices import RateSlices
from tornado_proxy.budgets.limits.rates import NOTHING_USED, STREAM_ENDED
from tornado_proxy.budgets.limits.token_bucket import UNIT_DEBT, TokenBucket
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateRefusal, RateUnit
from tornado_proxy.ledger.database import StoreError

REQUESTS = claim(RateUnit.REQUESTS, 6000)
STREAMS = claim(RateUnit.STREAMS, 100)


def lease(store: BudgetStore, slices: Slices, *claims: RateClaim) -> None:
    """Ask twice, as requests do, and lease the units that the next ones need."""
    for number in range(2):
        assert not slices.rates.take(f"ask {number}", claims)
    store.sync_leases()


def free_units(store: BudgetStore, one: RateClaim) -> int:
    """Return the units of a limit that a request can take."""
    with store._budgets.transaction():
        return store.rates.lock([one]).count_free(one)


def test_requests_take_units_that_were_leased_and_idle_ones_go_back(store: BudgetStore, slices: Slices) -> None:
    requests = claim(RateUnit.REQUESTS, 600, 1)
    lease(store, slices, requests)
    assert 592 <= free_units(store, requests) < 600  # four times two requests, of which some have drained
    assert [slices.rates.take(f"r{number}", (requests,)) for number in range(9)] == [True] * 8 + [False]

    slices.rates.return_idle(list(slices.rates.slices))
    store.sync_leases()

    assert store._budgets.fetch_rows("SELECT 1 FROM rate_leases") == []


def test_leased_units_are_not_taken_later_than_the_bucket_allows(
    store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_slices, "_VALID_S", 0.0)
    lease(store, slices, REQUESTS)
    assert not slices.rates.take("late", (REQUESTS,))


def test_tokens_that_were_not_used_are_free_after_the_next_sync(store: BudgetStore, slices: Slices) -> None:
    tokens = claim(RateUnit.TOKENS, 60_000, 1000)
    lease(store, slices, tokens)
    assert slices.rates.take("r1", (tokens,))
    assert slices.rates.take("r2", (tokens,))
    assert slices.rates.end("r1", {RateUnit.TOKENS: 10})
    assert not slices.rates.end("r1", {RateUnit.TOKENS: 10})
    slices.rates.return_idle(list(slices.rates.slices))
    store.sync_leases()

    # 10 and 1000 are used; a few have drained.
    assert 58_990 <= free_units(store, tokens) < 59_950
    assert slices.rates.end("r2", NOTHING_USED)
    store.sync_leases()
    assert free_units(store, tokens) >= 59_990


def test_tokens_that_are_taken_while_a_sync_writes_go_back(
    store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = claim(RateUnit.TOKENS, 60_000, 1000)
    lease(store, slices, tokens)
    write = store.rates.write

    def write_after_a_request(buckets: rates.LockedBuckets) -> None:
        assert slices.rates.take("r1", (tokens,))
        write(buckets)

    monkeypatch.setattr(store.rates, "write", write_after_a_request)
    store.sync_leases()
    monkeypatch.setattr(store.rates, "write", write)
    assert slices.rates.end("r1", NOTHING_USED)
    slices.rates.return_idle(list(slices.rates.slices))
    store.sync_leases()

    assert free_units(store, tokens) == 60_000


def test_tokens_of_a_lease_that_failed_do_not_free_those_of_others(
    budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = claim(RateUnit.TOKENS, 60_000, 1000)
    lease(store, slices, tokens)

    def fail_after_a_request(_: rates.LockedBuckets) -> NoReturn:
        assert slices.rates.take("r1", (tokens,))
        raise StoreError("the disk is full")

    with monkeypatch.context() as faulty:
        faulty.setattr(store.rates, "write", fail_after_a_request)
        with pytest.raises(StoreError):
            store.sync_leases()
    # A minute later all of that has drained, and another process takes everything; the number of its claim is that of
    # the lease that failed.
    budgets.store._budgets.run("UPDATE rate_buckets SET state = '[0,0,1,[]]'")
    began = time.monotonic()
    assert take(budgets.store, "all", claim(RateUnit.TOKENS, 60_000, 60_000)) is None
    slices.rates.end("r1", NOTHING_USED)
    slices.rates.return_idle(list(slices.rates.slices))
    store.sync_leases()

    assert free_units(store, tokens) <= 1000 * (time.monotonic() - began)


def test_limit_that_was_changed_is_leased_anew(store: BudgetStore, slices: Slices) -> None:
    lease(store, slices, REQUESTS)
    lowered = claim(RateUnit.REQUESTS, 50)
    assert not slices.rates.take("r1", (lowered,))
    store.sync_leases()
    assert slices.rates.take("r2", (lowered,))
    assert slices.rates.slices["project-a", "", "requests"].limit == 50


def test_streams_of_slices_count_until_they_end(budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices) -> None:
    lease(store, slices, STREAMS)
    assert slices.rates.take("r1", (STREAMS,))
    slices.rates.return_idle(list(slices.rates.slices))
    store.sync_leases()
    assert budgets.store.rates.count_streams() == {("project-a", ""): 1}
    # The database has lost the row, as when another process has found this one dead.
    store._budgets.run("DELETE FROM rate_leases")
    store._budgets.run("DELETE FROM rate_buckets")
    slices.forget()
    store.sync_leases()
    assert budgets.store.rates.count_streams() == {("project-a", ""): 1}

    slices.rates.end("r1", STREAM_ENDED)
    store.sync_leases()

    assert budgets.store.rates.count_streams() == {("project-a", ""): 0}


@pytest.mark.usefixtures("no_grace")
def test_streams_of_a_dead_process_that_had_leased_are_freed(
    budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices
) -> None:
    lease(store, slices, STREAMS)
    assert slices.rates.take("r1", (STREAMS,))
    store.sync_leases()
    budgets.kill(store)

    assert budgets.store.free_streams()

    assert budgets.store.rates.count_streams() == {("project-a", ""): 0}
    assert not budgets.store.free_streams()


@pytest.mark.usefixtures("no_grace")
def test_leases_of_a_dead_process_are_forgotten(budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices) -> None:
    lease(store, slices, REQUESTS, STREAMS)
    keys = list(slices.rates.slices)
    recalls = budgets.store.rate_leasing.recall(keys)
    assert recalls
    budgets.kill(store)

    budgets.store.free_dead()

    assert budgets.store.rate_leasing.is_answered(recalls)
    assert budgets.store.rates.count_streams() == {("project-a", ""): 0}


def test_recall_that_comes_while_units_are_leased_is_answered(
    budgets: BudgetsUnderTest, store: BudgetStore, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(store, slices, REQUESTS)
    keys, lock = list(slices.rates.slices), store.rates.lock

    def lock_after_the_recall(claims: Iterator[RateClaim]) -> rates.LockedBuckets:
        store._budgets.run("UPDATE rate_leases SET recalled = 1")
        return lock(claims)

    monkeypatch.setattr(store.rates, "lock", lock_after_the_recall)
    store.sync_leases()

    assert store._budgets.fetch_rows("SELECT 1 FROM rate_leases WHERE recalled = 1") == []
    assert not budgets.store.rate_leasing.recall(keys)


async def take_from_slices(keeper: BudgetKeeper, one: RateClaim) -> None:
    """Send requests, which end at once, until one has taken from a slice."""
    deadline = time.monotonic() + 20
    for number in itertools.count():
        assert time.monotonic() < deadline, "nothing was leased"
        entry = reservation(f"r{number}", one)
        is_taken = keeper.take(entry)
        assert is_taken or await keeper.reserve(entry) is None
        keeper.end(entry.request_id, NOTHING_USED)
        if is_taken:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("unit", [RateUnit.TOKENS, RateUnit.STREAMS])
def test_idle_units_of_another_process_refuse_no_request(
    unit: RateUnit, budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Units are given back because they are recalled, however long that takes on a busy machine.
    monkeypatch.setattr(rate_slices, "_IDLE_S", 1000)
    monkeypatch.setattr(deciding, "_ANSWER_S", 60)

    async def run() -> None:
        async with open_keeper(budgets) as first, open_keeper(budgets, writer="second") as second:
            await take_from_slices(first, claim(unit, 100))
            assert await second.reserve(reservation("all", claim(unit, 100, 100))) is None
            refusal = await second.reserve(reservation("one more", claim(unit, 100)))
            assert isinstance(refusal, RateRefusal) or unit is RateUnit.TOKENS  # one drains in 0.6 s

    asyncio.run(run())


def test_process_that_ends_gives_its_units_back(budgets: BudgetsUnderTest) -> None:
    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            await take_from_slices(keeper, STREAMS)

    asyncio.run(run())

    assert budgets.store._budgets.fetch_rows("SELECT 1 FROM rate_leases") == []
    assert take(budgets.store, "all", claim(RateUnit.STREAMS, 100, 100)) is None


LIMIT = 1200

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 2), st.sampled_from([1, 7, 40])),
        st.tuples(st.just("lease"), st.integers(0, 2), st.sampled_from([7, 40])),
        st.tuples(st.just("fill"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("take_all"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 50), st.sampled_from([0, 30, 100])),
        st.tuples(st.just("sync"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 2), st.sampled_from([10, 300, 2000])),
    ),
    min_size=10,
    max_size=40,
)


class World:
    """Three processes that share a limit, and the bucket that they would have if nothing was taken in advance."""

    def __init__(self, budgets: BudgetsUnderTest) -> None:
        self.processes = [(budgets.open(f"p{number}", slices=own), own) for number in range(3) for own in [Slices()]]
        self.clock = SimpleNamespace(monotonic=lambda: self.now_us / 1e6, time_ns=lambda: self.now_us * 1000)
        self.names = itertools.count()
        self.begin()

    def begin(self) -> None:
        """Begin anew: nothing is taken."""
        self.now_us = 1_000_000_000
        self.exact = TokenBucket()
        self.under_way: dict[str, tuple[int, int, int]] = {}
        for table in ("rate_buckets", "rate_claims", "rate_leases"):
            self.processes[0][0]._budgets.run(f"DELETE FROM {table}")  # noqa: S608  # names of ours
        for _, slices in self.processes:
            slices.rates = RateSlices()
        for store, slices in self.processes:
            store.rate_leasing._slices = slices.rates

    def take(self, number: int, units: int) -> None:
        """Send a request, and compare its decision with that of the exact bucket."""
        request_id, one = f"r{next(self.names)}", claim(RateUnit.TOKENS, LIMIT, units)
        store, slices = self.processes[number]
        self.exact.drain(LIMIT, self.now_us)
        is_taken = slices.rates.take(request_id, (one,)) or take(store, request_id, one) is None
        if not is_taken:
            for other, held in self.processes:
                held.rates.return_idle(list(held.rates.slices))
                other.rate_leasing.sync()
            is_taken = take(store, request_id, one) is None
            for _, held in self.processes:
                for slice_ in held.rates.slices.values():  # as if seconds had passed: they lease again
                    slice_.recalled_at = slice_.denied_at = float("-inf")
            assert is_taken or self.exact.debt + units * UNIT_DEBT > LIMIT * 0.99 * UNIT_DEBT
        if is_taken:
            self.under_way[request_id] = (number, units, self.exact.take(units))
            assert self.exact.debt <= LIMIT * 1.01 * UNIT_DEBT

    def lease(self, number: int, units: int) -> None:
        """Take twice, and lease in a process."""
        self.take(number, units)
        self.take(number, units)
        self.sync(number, 0)

    def fill(self, number: int, _: int) -> None:
        """Take all units that the database has, and then those of the slices."""
        if free := free_units(self.processes[number][0], claim(RateUnit.TOKENS, LIMIT)):
            self.take(number, free)
        for other, (_, slices) in enumerate(self.processes):
            if idle := sum(one.idle for one in slices.rates.slices.values()):
                self.take(other, idle)

    def take_all(self, number: int, _: int) -> None:
        """Take nearly all that is free, whichever process has it idle."""
        self.exact.drain(LIMIT, self.now_us)
        if free := self.exact.count_free(LIMIT) * 98 // 100:
            self.take(number, free)

    def end(self, number: int, percent: int) -> None:
        """End a request that has used a part of its units."""
        if not self.under_way:
            return
        request_id = list(self.under_way)[number % len(self.under_way)]
        owner, units, claimed = self.under_way.pop(request_id)
        used = units * percent // 100
        store, slices = self.processes[owner]
        if not slices.rates.end(request_id, {RateUnit.TOKENS: used}):
            store.end([rates.RateEnd(request_id, {RateUnit.TOKENS: used})])
        self.exact.drain(LIMIT, self.now_us)
        self.exact.give_back(claimed, units - used)

    def sync(self, number: int, _: int) -> None:
        """Give back and lease in a process."""
        self.processes[number][0].rate_leasing.sync()

    def wait(self, _: int, milliseconds: int) -> None:
        """Let time pass."""
        self.now_us += milliseconds * 1000


def test_no_interleaving_exceeds_a_limit_by_more_than_one_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_ledger(tmp_path / "ledger.db")
    budgets = BudgetsUnderTest(tmp_path / "ledger.db")
    world = World(budgets)
    # The bucket that is compared keeps all of its lowest debts.
    monkeypatch.setattr(token_bucket, "_MAX_LOWS", 1000)
    for module in (rates, rate_slices, rate_leasing):
        monkeypatch.setattr(module, "time", world.clock)

    @settings(max_examples=40, deadline=None)
    @example(operations=[("lease", 0, 40), ("wait", 0, 10_000), ("fill", 1, 0)])
    @example(
        operations=[("lease", 0, 40), ("take", 0, 40), ("end", 2, 0), *[("sync", 0, 0)] * 3, ("fill", 1, 0)],
    )
    @given(operations=OPERATIONS)
    def run(operations: list[tuple[str, int, int]]) -> None:
        world.begin()
        for name, number, value in operations:
            getattr(world, name)(number, value)

    try:
        run()
    finally:
        budgets.close()
