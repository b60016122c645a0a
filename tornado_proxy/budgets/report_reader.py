"""Runs queries that read many counters, and other long work, beside the thread that admits requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import StoreError

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class ReportReader:
    """A connection to the budgets, and its thread.  Queries run one after the other."""

    def __init__(self, open_store: Callable[[], BudgetStore]) -> None:
        self._open_store = open_store
        self._executor = ThreadPoolExecutor(1, "budget reports")
        #: In the thread.
        self._store: BudgetStore | None = None

    async def read(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        """Return the result of a query.

        Raises:
            LedgerUnavailable: the budgets cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, query)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown(wait=False)

    def _read(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        try:
            if self._store is None:
                self._store = self._open_store()
            return query(self._store)
        except StoreError as error:
            self._close()
            raise LedgerUnavailable(str(error), client_message="the budgets cannot be read") from error

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


async def run_in_thread(work: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
    """Return the result of `work`; raise LedgerUnavailable if a database fails."""
    try:
        return await asyncio.to_thread(work, argument)
    except StoreError as error:
        raise LedgerUnavailable(str(error), client_message="the budgets cannot be read") from error
