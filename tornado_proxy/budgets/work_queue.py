"""The queue of the thread of the budgets: what the event loop asks of it, collected for one turn."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tornado_proxy.budgets.deciding import Demand
from tornado_proxy.budgets.limits.rates import RateEnd
from tornado_proxy.budgets.store import BudgetStore


@dataclass(frozen=True, slots=True)
class Read:
    """A query, and the future of its result."""

    query: Callable[[BudgetStore], Any]
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Wake:
    """Makes the thread look at the slices now."""


@dataclass(slots=True)
class Work:
    """The items that one turn of the thread handles."""

    reserves: list[Demand] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    ended: list[RateEnd] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    is_last: bool = False


class WorkQueue:
    """A queue that the event loop fills and the thread empties."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Demand | Read | RateEnd | Wake | str | None] = queue.SimpleQueue()

    def put(self, item: Demand | Read | RateEnd | Wake | str | None) -> None:
        """Add an item: the id of a request to release, or None for the end.  Never blocks."""
        self._queue.put(item)

    def collect(self, failed: Work, timeout_s: float) -> Work:
        """Return all items that wait, and the releases that failed before; wait for the first for `timeout_s`."""
        work = Work(released=failed.released, ended=failed.ended)
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=timeout_s)
            while True:
                match item:
                    case None:
                        work.is_last = True
                        return work
                    case Demand():
                        work.reserves.append(item)
                    case Read():
                        work.reads.append(item)
                    case RateEnd():
                        work.ended.append(item)
                    case str():
                        work.released.append(item)
                    case Wake():
                        pass
                item = self._queue.get_nowait()
        return work
