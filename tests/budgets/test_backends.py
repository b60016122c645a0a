"""The budgets of a new ledger are opened by several processes at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.budgets.conftest import BudgetsUnderTest
from tornado_proxy.budgets.backends import open_store
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.ledger.backends import make_ledger

PROCESSES = 3


@pytest.fixture(params=["sqlite", "postgresql"])
def budgets(request: pytest.FixtureRequest, tmp_path: Path) -> BudgetsUnderTest:
    """Return the budgets of an empty ledger on each database in turn, which have no tables yet."""
    address: LedgerAddress = tmp_path / "ledger.db"
    if request.param == "postgresql":
        address = PostgresAddress(request.getfixturevalue("postgres_database"), None, tmp_path / "journal")

    async def create() -> None:
        ledger = make_ledger(address)
        await ledger.open()
        await ledger.close()

    asyncio.run(create())
    return BudgetsUnderTest(address)


def test_processes_that_start_at_once_make_the_tables_together(budgets: BudgetsUnderTest) -> None:
    barrier = Barrier(PROCESSES)
    all_locks = [budgets.locks(f"process {number}") for number in range(PROCESSES)]

    def open_and_close(number: int) -> None:
        barrier.wait()
        open_store(budgets.address, all_locks[number]).close()

    with ThreadPoolExecutor(PROCESSES) as threads:
        list(threads.map(open_and_close, range(PROCESSES)))
    budgets.close()
