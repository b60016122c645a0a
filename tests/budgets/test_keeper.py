"""Budgets on an event loop, with the thread that uses them."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs
from prometheus_client import REGISTRY

from tests.budgets.conftest import CALLER, MONTH, BudgetsUnderTest, make_id, record, reservation, usd
from tests.budgets.keepers import PLAN, WAIT_S, figures, open_keeper, wait_for_any, wait_for_figures, wait_until
from tornado_proxy.budgets import deciding, schedule
from tornado_proxy.budgets.keeper import BudgetKeeper, BudgetLedger, BudgetListeners
from tornado_proxy.budgets.limits.rates import STREAM_ENDED
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateUnit
from tornado_proxy.domain.budgets.refusal import Refusal
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

BUDGET = Budget(MONTH, Decimal(1))


def now() -> datetime:
    return datetime.now(UTC)


def test_parallel_requests_reserve_in_one_transaction_and_stop_at_the_limit(budgets: BudgetsUnderTest) -> None:
    async def run() -> list[bool]:
        async with open_keeper(budgets) as keeper:
            requests = [reservation(f"r{number}", "0.3", BUDGET, at=now()) for number in range(100)]
            results = await asyncio.gather(*map(keeper.reserve, requests))
            assert await figures(keeper) == usd("0", "1.2")
            return [result is None for result in results]

    admitted = asyncio.run(run())

    assert admitted.count(True) == 4


def test_record_of_the_ledger_frees_its_reservation(budgets: BudgetsUnderTest) -> None:
    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            at = now()
            assert await keeper.reserve(reservation("a", "0.3", BUDGET, at=at)) is None
            await asyncio.to_thread(budgets.write, record("a", "0.1", at=at))
            await wait_for_figures(keeper, "0.1", "0")

    asyncio.run(run())


def test_request_waits_for_the_record_of_one_that_has_ended(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as the write takes on a busy machine.
    monkeypatch.setattr(deciding, "_COUNT_S", WAIT_S)

    async def run() -> Refusal | None:
        async with open_keeper(budgets) as keeper:
            at = now()
            assert await keeper.reserve(reservation("a", "0.8", BUDGET, at=at)) is None
            strict = Budget(MONTH, Decimal(1), strict=True)
            next_one = asyncio.create_task(keeper.reserve(reservation("b", "0.8", strict, at=at)))
            await keeper.read(lambda _: None)  # the thread has looked at the second request
            assert not next_one.done()
            await asyncio.to_thread(budgets.write, record("a", "0.1", at=at))
            return await next_one

    assert asyncio.run(run()) is None


def test_released_request_reserves_nothing(budgets: BudgetsUnderTest) -> None:
    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            await keeper.reserve(reservation("a", "0.3", BUDGET, at=now()))
            keeper.release(make_id("a"))
            await wait_for_figures(keeper, "0", "0")

    asyncio.run(run())


def test_request_that_is_cancelled_while_it_waits_reserves_nothing(budgets: BudgetsUnderTest) -> None:
    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            waiting = asyncio.ensure_future(keeper.reserve(reservation("a", "0.3", BUDGET, at=now())))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await keeper.reserve(reservation("b", "0.2", BUDGET, at=now()))
            await wait_for_figures(keeper, "0", "0.2")

    asyncio.run(run())


@pytest.mark.usefixtures("no_grace")
def test_request_of_a_process_that_died_before_it_was_sent_is_freed(budgets: BudgetsUnderTest) -> None:
    dying = budgets.open("dying")
    dying.reserve([reservation("a", "0.3", BUDGET, caller=CALLER, at=now())])
    budgets.kill(dying)

    async def run() -> None:
        async with open_keeper(budgets) as keeper:

            async def is_free() -> bool:
                return not await keeper.read(lambda store: list(store.iterate_reservations()))

            await wait_until(is_free)

    asyncio.run(run())


@pytest.mark.parametrize("new_budgets", ["sqlite"], indirect=True)
def test_fault_of_the_database_refuses_requests_until_it_ends(
    budgets: BudgetsUnderTest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locker = sqlite3.connect(tmp_path / "ledger.db-budgets", isolation_level=None)

    async def run() -> None:
        async with open_keeper(budgets) as keeper:
            locker.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailable, match="another program holds the file"):
                await keeper.reserve(reservation("a", "0.3", BUDGET, at=now()))
            assert REGISTRY.get_sample_value("llm_proxy_budgets_healthy") == 0
            with pytest.raises(LedgerUnavailable, match="another program holds the file"):
                await keeper.reserve(reservation("c", "0.3", BUDGET, at=now()))
            locker.execute("ROLLBACK")
            async with asyncio.timeout(WAIT_S):
                while True:
                    try:
                        assert await keeper.reserve(reservation("b", "0.2", BUDGET, at=now())) is None
                    except LedgerUnavailable:
                        continue
                    break
            await wait_for_figures(keeper, "0", "0.2")
            assert REGISTRY.get_sample_value("llm_proxy_budgets_healthy") == 1

    try:
        asyncio.run(run())
    finally:
        locker.close()
    lines = [line.getMessage() for line in caplog.records if line.name == "tornado_proxy.budgets.keeper"]
    assert [line for line in lines if "compared" not in line] == [
        "the budgets cannot be written",
        "the budgets can be written again",
    ]


def test_database_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    keeper = BudgetKeeper(BudgetLedger(tmp_path / "missing.db", ProcessLocks(tmp_path / "missing.db")))

    async def run() -> None:
        with pytest.raises(LedgerUnavailable):
            await keeper.open(PLAN)

    asyncio.run(run())


def test_alert_that_its_process_did_not_store_is_reported_by_another_one(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_ALERTS_S", 0.05)
    dead = budgets.open("dead")
    dead.folding.limits = BudgetLimits({CALLER.project_id: (BUDGET,)})
    budgets.write(record("a", "0.9", at=now()))
    dead.folding.fold()
    found: list[BudgetWarning] = []

    async def run() -> None:
        async with open_keeper(budgets, BudgetListeners(untold=found.append)) as keeper:
            await wait_for_any(found)
            await keeper.forget_alert(found[0])
            assert await keeper.read(lambda store: store.folding.list_untold(now())) == []

    asyncio.run(run())
    assert found[0].threshold == 80


def test_warning_of_the_last_records_is_reported_when_the_process_ends(budgets: BudgetsUnderTest) -> None:
    found: list[BudgetWarning] = []

    async def run() -> None:
        async with open_keeper(budgets, BudgetListeners(warning=found.append)) as keeper:
            keeper.watch(BudgetLimits({CALLER.project_id: (BUDGET,)}))
            await keeper.read(lambda store: store.folding.fold())
            await asyncio.to_thread(budgets.write, record("a", "0.9", at=now()))

    asyncio.run(run())
    assert [warning.threshold for warning in found] == [80]


def test_warning_is_reported_although_the_database_fails_then(
    budgets: BudgetsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[BudgetWarning] = []
    sync_leases = BudgetStore.sync_leases

    def fail_after_a_warning(self: BudgetStore) -> None:
        if self.folding.list_untold(now()):
            monkeypatch.setattr(BudgetStore, "sync_leases", sync_leases)
            raise StoreError("the server has stopped")
        sync_leases(self)

    monkeypatch.setattr(BudgetStore, "sync_leases", fail_after_a_warning)

    async def run() -> None:
        async with open_keeper(budgets, BudgetListeners(warning=found.append)) as keeper:
            keeper.watch(BudgetLimits({CALLER.project_id: (BUDGET,)}))
            await keeper.read(lambda store: store.folding.fold())
            await asyncio.to_thread(budgets.write, record("a", "0.9", at=now()))
            await wait_for_any(found)

    asyncio.run(run())
    assert [warning.threshold for warning in found] == [80]
    assert BudgetStore.sync_leases is sync_leases, "nothing failed"


def end_streams(keeper: BudgetKeeper, request_id: str) -> None:
    """End a streamed response."""
    keeper.end(request_id, STREAM_ENDED)


@pytest.mark.parametrize("end", [end_streams, BudgetKeeper.release])
def test_units_of_a_request_that_is_over_are_free_for_the_next_one(
    end: Callable[[BudgetKeeper, str], None], budgets: BudgetsUnderTest
) -> None:
    one = RateClaim("project-a", "", RateUnit.STREAMS, 1, 1)

    async def run() -> list[Refusal | None]:
        async with open_keeper(budgets) as keeper:
            refusals = []
            for number in range(20):
                reserving = structs.replace(reservation(f"r{number}", "0", at=now()), claims=(one,))
                refusals.append(await keeper.reserve(reserving))
                end(keeper, reserving.request_id)
            return refusals

    assert asyncio.run(run()) == [None] * 20


def test_process_that_ends_gives_its_slices_back(budgets: BudgetsUnderTest) -> None:
    names = itertools.count()

    async def run() -> None:
        async with open_keeper(budgets) as keeper:

            async def is_taken() -> bool:
                entry = reservation(f"r{next(names)}", "0.01", BUDGET, at=now())
                is_sliced = keeper.take(entry)
                assert is_sliced or await keeper.reserve(entry) is None
                keeper.release(entry.request_id)
                return is_sliced

            await wait_until(is_taken)
            assert await keeper.read(lambda store: store.leasing.read_idle())

    asyncio.run(run())

    assert budgets.store._budgets.fetch_rows("SELECT 1 FROM budget_leases") == []
    assert budgets.figures() == {"": usd("0", "0")}
