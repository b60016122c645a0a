"""The budgets of a new ledger are opened by several processes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.budgets.conftest import BudgetsUnderTest
from tornado_proxy.budgets.backends import open_store

PROCESSES = 3


def test_processes_that_start_at_once_make_the_tables_together(new_budgets: BudgetsUnderTest) -> None:
    barrier = Barrier(PROCESSES)
    all_locks = [new_budgets.locks(f"process {number}") for number in range(PROCESSES)]

    def open_and_close(number: int) -> None:
        barrier.wait()
        open_store(new_budgets.address, all_locks[number]).close()

    with ThreadPoolExecutor(PROCESSES) as threads:
        list(threads.map(open_and_close, range(PROCESSES)))
