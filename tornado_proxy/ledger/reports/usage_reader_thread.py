"""Answers usage queries in threads of their own, on read-only connections, with a share for each caller.

Reads and writes do not wait for each other: both databases let one connection write while others read.

    caller a ── query, query ──┐    one query of a caller at a time
    caller b ── query ─────────┼──> threads ──> turns: one thread computes, for _SLICE_S, then the next one
    caller c ── query ─────────┘

So a caller who asks for a year of usage delays the others by a slice, not by its query.  A query is cancelled after
_MAX_QUERY_S of its own turns or _MAX_RECORDS.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from tornado_proxy.domain.errors import LedgerUnavailable, Overloaded, RateLimited
from tornado_proxy.ledger.database import Backend, Read, ReadTimeout
from tornado_proxy.ledger.reports.item_query import can_sum_items, sum_items
from tornado_proxy.ledger.reports.part_records import select_part
from tornado_proxy.ledger.reports.ranked_usage import read_ranked
from tornado_proxy.ledger.reports.ranking import RankedQuery, RankedUsage
from tornado_proxy.ledger.reports.record_spans import find_spans
from tornado_proxy.ledger.reports.record_sums import can_use_sums, sum_groups
from tornado_proxy.ledger.reports.records_page import RecordsQuery, read_page
from tornado_proxy.ledger.reports.records_query import Record, select_bills
from tornado_proxy.ledger.reports.request_lookup import RequestLookup, find_records
from tornado_proxy.ledger.reports.rollup_query import check_not_pruned
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult, too_much_usage
from tornado_proxy.ledger.reports.usage_sums import sum_usage

#: Seconds and records of one query: some 50,000 records are read in a second.
_MAX_QUERY_S = 10.0
_MAX_RECORDS = 1_000_000

#: Queries that run or wait, over all and for each caller.
_MAX_WAITING, _MAX_WAITING_PER_CALLER = 32, 8

#: Queries whose threads share the turns; each has a connection, of some 2 MB.
_MAX_THREADS = 8

#: Seconds of a turn.  A turn changes at a check of the query's bounds, a few milliseconds apart.
_SLICE_S = 0.05


Result = TypeVar("Result")


class _Turns:
    """Lets one thread compute at a time, first come, first served.

    Summing holds the interpreter's lock, so that a second computing thread would slow requests, not queries.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._ends_at = 0.0

    def take(self) -> None:
        """Wait for a turn."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            self._condition.wait_for(lambda: self._queue[0] is ticket)
            self._ends_at = time.monotonic() + _SLICE_S

    def give_back(self) -> None:
        """End the turn of this thread."""
        with self._condition:
            self._queue.popleft()
            self._condition.notify_all()

    def pass_on(self) -> float:
        """Let the next thread compute if this one's slice is over; return the seconds of waiting for the next turn."""
        began_at = time.monotonic()
        if began_at < self._ends_at or len(self._queue) == 1:
            return 0.0
        self.give_back()
        self.take()
        return time.monotonic() - began_at


class _SharedBounds(Bounds):
    """Bounds of a query that shares the turns; waiting does not count."""

    def __init__(self, turns: _Turns) -> None:
        super().__init__(_MAX_RECORDS, time.monotonic() + _MAX_QUERY_S)
        self._turns = turns

    def is_over(self) -> bool:
        """Let others have their turn, and return True after the deadline."""
        self.until += self._turns.pass_on()
        return super().is_over()


class UsageReaderThread:
    """The reader threads.  read_usage() and close() are called in the event loop's thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(max_workers=_MAX_THREADS, thread_name_prefix="ledger-reader")
        self._turns = _Turns()
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, asyncio.Lock] = {}
        self._closed = False

    async def read_usage(self, query: UsageQuery) -> UsageResult:
        """Return the usage that a query selects.

        Raises:
            BadRequest: there is too much usage for one result.
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._run(query.asker, lambda: self._read_usage(query))

    async def read_ranked(self, query: RankedQuery) -> RankedUsage:
        """Return the dearest groups of the usage that a query selects.

        Raises:
            BadRequest: there is too much usage for one result.
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._run(query.asker, lambda: self._read_ranked(query))

    async def find_requests(self, lookup: RequestLookup) -> list[Record]:
        """Return the records of one request of a caller.

        Raises:
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait, or the search takes too long.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._run(lookup.asker, lambda: self._find_requests(lookup))

    async def list_records(self, query: RecordsQuery) -> list[Record]:
        """Return one page of records.

        Raises:
            BadRequest: the search takes too long.
            RateLimited: too many queries of the caller wait.
            Overloaded: too many queries wait.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._run(query.asker, lambda: self._list_records(query))

    async def _run(self, asker: str, read: Callable[[], Result]) -> Result:
        """Return the result of a query, which a thread runs in the caller's turn."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        if asker and self._waiting[asker] >= _MAX_WAITING_PER_CALLER:
            raise RateLimited("too many of your reports are being made; wait for them")
        if self._waiting.total() >= _MAX_WAITING:
            raise Overloaded("too many reports are being made; try again shortly")
        self._waiting[asker] += 1
        try:
            async with self._running.setdefault(asker, asyncio.Lock()):
                if self._closed:
                    raise LedgerUnavailable("the ledger is closed")
                return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        finally:
            self._waiting[asker] -= 1
            if not self._waiting[asker]:
                del self._waiting[asker], self._running[asker]

    def close(self) -> None:
        """Cancel the running queries and end the threads."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read_usage(self, query: UsageQuery) -> UsageResult:
        return self._in_turn(lambda read, bounds: _sum(read, query, bounds))

    def _read_ranked(self, query: RankedQuery) -> RankedUsage:
        def rank(read: Read, bounds: Bounds) -> RankedUsage:
            return read_ranked(read, self._backend.dialect, query, lambda each: _sum(read, each, bounds))

        return self._in_turn(rank)

    def _in_turn(self, compute: Callable[[Read, Bounds], Result]) -> Result:
        """Return the result of a function that reads one snapshot, in turn with other queries."""
        self._turns.take()
        bounds = _SharedBounds(self._turns)
        try:
            with self._backend.read(lambda: self._closed or bounds.is_over(), snapshot=True) as read:
                return compute(read, bounds)
        except ReadTimeout as error:
            raise too_much_usage() from error
        finally:
            self._turns.give_back()

    def _list_records(self, query: RecordsQuery) -> list[Record]:
        def list_page(read: Read, _: Bounds) -> list[Record]:
            if query.which.request_id is None:  # a list without the pruned ones would look complete
                check_not_pruned(read, query.which)
            return read_page(read, query)

        return self._in_turn(list_page)

    def _find_requests(self, lookup: RequestLookup) -> list[Record]:
        self._turns.take()
        bounds = _SharedBounds(self._turns)
        try:
            with self._backend.read(lambda: self._closed or bounds.is_over()) as read:
                return find_records(read, lookup)
        except ReadTimeout as error:
            raise Overloaded("the search takes too long; name the id of the header Llm-Proxy-Request-Id") from error
        finally:
            self._turns.give_back()


def _sum(read: Read, query: UsageQuery, bounds: Bounds) -> UsageResult:
    if can_use_sums(query):
        return sum_groups(read, query, bounds)
    if can_sum_items(read, query):
        return sum_items(read, query, bounds)
    check_not_pruned(read, query.which)
    return sum_usage(_read_bills(read, query), query, bounds)


def _read_bills(read: Read, query: UsageQuery) -> Iterator[Sequence[str | None]]:
    for span in find_spans(read, query.which):
        which = replace(query.which, since=span.since, until=span.until)
        if span.seqs is not None:
            yield from read(
                *select_part(query.columns, which, f"seq IN ({', '.join('?' * len(span.seqs))})", span.seqs)
            )
            continue
        # One record more than sum_usage() accepts, so that it sees that there are too many.
        yield from read(*select_bills(query.columns, which, _MAX_RECORDS + 1))
