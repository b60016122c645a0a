"""Answers usage queries in a thread of its own, on a read-only connection.

Reads and writes do not wait for each other: both databases let one connection write while others read.  A query is
cancelled after _MAX_QUERY_S or _MAX_RECORDS, and at most _MAX_WAITING queries wait.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from tornado_proxy.domain.errors import LedgerUnavailable, Overloaded
from tornado_proxy.ledger.database import Backend, ReadTimeout
from tornado_proxy.ledger.reports.records_query import select_bills
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult, sum_usage, too_much_usage

#: Seconds and records of one query: some 50,000 records are read in a second.
_MAX_QUERY_S = 10.0
_MAX_RECORDS = 1_000_000

#: Queries that run or wait; with one thread, the last of them may wait for 5 minutes.
_MAX_WAITING = 32


class UsageReaderThread:
    """One reader thread.  read_usage() and close() are called in the event loop's thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # One thread: summing holds the interpreter's lock, so that a second one would slow requests, not queries.
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self._waiting = 0
        self._closed = False

    async def read_usage(self, query: UsageQuery) -> UsageResult:
        """Return the usage that a query selects.

        Raises:
            BadRequest: there is too much usage for one result.
            Overloaded: too many other queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        if self._waiting >= _MAX_WAITING:
            raise Overloaded("too many reports are being made; try again shortly")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read_usage, query)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Cancel the running query and end the thread."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read_usage(self, query: UsageQuery) -> UsageResult:
        bounds = Bounds(_MAX_RECORDS, time.monotonic() + _MAX_QUERY_S)
        # One record more than sum_usage() accepts, so that it sees that there are too many.
        sql, values = select_bills(query.columns, query.which, _MAX_RECORDS + 1)
        try:
            with self._backend.read(lambda: self._closed or time.monotonic() > bounds.until) as read:
                return sum_usage(read(sql, values), query, bounds)
        except ReadTimeout as error:
            raise too_much_usage() from error
