"""Answers questions about usage, in a thread and on a read-only connection of its own.

The writer is never waited for and never waits: both stores let one write while others read.  A question is cut off when
its time or its records are over, and no more than a few wait for their turn.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from tornado_proxy.domain.errors import LedgerUnavailable, Overloaded
from tornado_proxy.domain.ledger_address import LedgerAddress
from tornado_proxy.ledger.reports.read_connection import ReadTimeout, reading
from tornado_proxy.ledger.reports.records_query import select_bills
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult, sum_usage, too_much_usage

#: Seconds that one question may take, and records that it may look at: some 50,000 a second are read.
_LIMIT_S = 10.0
_MOST_RECORDS = 1_000_000

#: Questions that wait at the most; one more is turned away.
_MOST_WAITING = 32


class UsageReaderThread:
    """One reader thread.  ask() from the event loop, close() at the end."""

    def __init__(self, ledger: LedgerAddress) -> None:
        self._ledger = ledger
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self._waiting = 0
        self._closed = False

    async def ask(self, question: UsageQuery) -> UsageResult:
        """The answer to a question.

        Raises:
            BadRequest: it is too large.
            Overloaded: too many others wait.
            LedgerUnavailable: the ledger cannot be read.
        """
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("too many reports are being made; try again shortly")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Cut off what is being read, and end the thread."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: UsageQuery) -> UsageResult:
        bounds = Bounds(_MOST_RECORDS, time.monotonic() + _LIMIT_S)
        sql, values = select_bills(question.columns, question.which, _MOST_RECORDS + 1)
        try:
            with reading(self._ledger, lambda: self._closed or time.monotonic() > bounds.until) as read:
                return sum_usage(read(sql, values), question, bounds)
        except ReadTimeout as error:
            raise too_much_usage() from error
