"""Runs the budgets of a server process on an event loop, and waits for their thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager
from decimal import Decimal

from tests.budgets.conftest import MONTH, BudgetsUnderTest, usd
from tornado_proxy.budgets.keeper import BudgetKeeper, BudgetLedger, BudgetListeners
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.counter import CounterPlan, CounterState

PLAN = CounterPlan((MONTH,))

#: Seconds for which a test waits for the thread.
WAIT_S = 20


@asynccontextmanager
async def open_keeper(
    budgets: BudgetsUnderTest, listeners: BudgetListeners | None = None, writer: str = "keeper"
) -> AsyncIterator[BudgetKeeper]:
    """Yield the budgets as one server process uses them."""
    keeper = BudgetKeeper(BudgetLedger(budgets.address, budgets.locks(writer)), listeners)
    await keeper.open(PLAN)
    try:
        yield keeper
    finally:
        await keeper.close()


async def figures(keeper: BudgetKeeper) -> tuple[Decimal, Decimal]:
    """Return settled and reserved USD of the project."""
    counters: list[CounterState] = await keeper.read(BudgetStore.list_counters)
    return (counters[0].settled, counters[0].reserved) if counters else (Decimal(0), Decimal(0))


async def wait_for_figures(keeper: BudgetKeeper, settled: str, reserved: str) -> None:
    """Wait until the project's counter has these figures."""

    async def has_figures() -> bool:
        return await figures(keeper) == usd(settled, reserved)

    await wait_until(has_figures)


async def wait_for_any(found: Sized) -> None:
    """Wait until a list has an entry."""

    async def has_entry() -> bool:
        return len(found) > 0

    await wait_until(has_entry)


async def wait_until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `is_so` returns True."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await is_so():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
