"""Decides about the requests that do not fit into slices, in the thread of the budgets: each against the counters.

A request that only reservations or a limit refuse can be refused by slices of which nothing is used.  So this process
gives back its idle parts, asks the others for theirs, and decides again when all have answered, or after two seconds;
meanwhile another one can have leased, which is then asked.

The reservations can also be those of requests that have ended: an agent sends the next one some milliseconds after the
last byte of a response, and the record is committed and counted later.  So a request waits for that, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tornado_proxy.budgets.counting.counters import CounterKey, key_budgets
from tornado_proxy.budgets.limits.rates import BucketKey, find_bucket_key
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.domain.budgets.rate_limits import RateRefusal
from tornado_proxy.domain.budgets.refusal import BudgetRefusal, Refusal
from tornado_proxy.domain.budgets.reservation import Reservation

#: Seconds that a request waits for what other processes have idle, and between two looks at whether they gave it back.
_ANSWER_S = 2.0
_ANSWER_POLL_S = 0.02

#: Seconds that a request waits for the records of requests that have ended: they are committed within 0.1 s, and a busy
#: disk takes longer.
_COUNT_S = 0.3

#: Seconds between two searches for dead processes because streams are refused.
_DEAD_SEARCH_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """A request that waits for its decision."""

    reservation: Reservation
    done: asyncio.Future[Refusal | None]


@dataclass(frozen=True, slots=True)
class _Recalls:
    """The processes that were asked for what they have idle, and of which counters and limits."""

    counters: frozenset[tuple[str, CounterKey]] = frozenset()
    limits: frozenset[tuple[str, BucketKey]] = frozenset()

    def __or__(self, other: _Recalls) -> _Recalls:
        return _Recalls(self.counters | other.counters, self.limits | other.limits)

    def __bool__(self) -> bool:
        return bool(self.counters or self.limits)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocked:
    """Requests that wait since `began` (monotonic).

    Attributes:
        cursor: The last record that was counted before the requests were decided about; 0 if that is not known.
        recalls: All whom they have asked.
        is_asking: True until all of these have answered; False if records alone are to be counted.
    """

    demands: Sequence[Demand]
    began: float
    cursor: int
    recalls: _Recalls
    is_asking: bool


class Decisions:
    """The decisions of one process.  `answer` gets futures and their results."""

    def __init__(self, answer: Callable[[list[tuple[asyncio.Future[Any], Any]]], None]) -> None:
        self._answer = answer
        self._blocked: list[_Blocked] = []
        #: When refused streams may start the next search for dead processes.
        self._search_dead_at = 0.0

    def wait_s(self) -> float:
        """Return the seconds until retry() has something to look at."""
        return _ANSWER_POLL_S if self._blocked else _ANSWER_S

    def decide(self, store: BudgetStore, demands: Sequence[Demand], *, is_last: bool) -> None:
        """Reserve for requests, or refuse them; `is_last` if there is no time to wait for other processes."""
        results = self._reserve(store, demands)
        kept = [] if is_last else self._find_waiting(store, demands, results, time.monotonic(), _Recalls())
        self._blocked += kept
        self._answer_decided(results, kept)

    def retry(self, store: BudgetStore, *, is_last: bool) -> None:
        """Decide about requests again: other processes have given back their idle parts, or records were counted."""
        if not self._blocked:
            return
        cursor, now = store.count(), time.monotonic()
        due: list[_Blocked] = []
        counted: list[_Blocked] = []
        waiting: list[_Blocked] = []
        for group in self._blocked:
            # Look before the decision: it does not know what processes give back after it.
            if is_last or _is_due(store, group, now):
                due.append(group)
            else:
                (counted if group.cursor != cursor else waiting).append(group)
        # Not before their results: if the database fails, take_waiting() has them.
        results = self._reserve(store, [demand for group in due + counted for demand in group.demands])
        kept = [replace(group, demands=_list_blocked(group.demands, results), cursor=cursor) for group in counted]
        for group in due:
            if not is_last and now < group.began + _ANSWER_S:
                kept += self._find_waiting(store, group.demands, results, group.began, group.recalls)
        self._blocked = waiting + [group for group in kept if group.demands]
        self._answer_decided(results, kept)

    def _find_waiting(
        self,
        store: BudgetStore,
        demands: Sequence[Demand],
        results: dict[Demand, Refusal | None],
        began: float,
        recalls: _Recalls,
    ) -> list[_Blocked]:
        """Ask all processes for what they have idle; return the requests that wait, and set the results of others.

        Those in `recalls` are not asked again: what they have is in use.
        """
        cursor = 0
        for is_first in (True, False):
            demands = _list_blocked(demands, results)
            if not demands:
                return []
            asked = _ask_for_idle(store, demands, results, recalls)
            if asked:
                return [_Blocked(demands, began, cursor, recalls | asked, is_asking=True)]
            if is_first:
                # The idle parts were this process's own, or have been given back in the meantime.  A process that
                # leases until the second decision is asked after it.
                cursor = store.read_cursor()
                results |= self._reserve(store, demands)
        by_budgets = [demand for demand in demands if isinstance(results[demand], BudgetRefusal)]
        is_recent = time.monotonic() < began + _COUNT_S
        return [_Blocked(by_budgets, began, cursor, recalls, is_asking=False)] if by_budgets and is_recent else []

    def _answer_decided(self, results: Mapping[Demand, Refusal | None], kept: Iterable[_Blocked]) -> None:
        waiting = {demand for group in kept for demand in group.demands}
        self._answer([(demand.done, result) for demand, result in results.items() if demand not in waiting])

    def take_waiting(self) -> list[Demand]:
        """Return the requests that wait; they wait no more."""
        waiting, self._blocked = [demand for group in self._blocked for demand in group.demands], []
        return waiting

    def _reserve(self, store: BudgetStore, demands: Sequence[Demand]) -> dict[Demand, Refusal | None]:
        results = _reserve(store, demands)
        refused = [demand for demand, result in results.items() if _is_out_of_streams(result)]
        # A process that was killed holds streams that nothing will end.
        if refused and time.monotonic() >= self._search_dead_at:
            self._search_dead_at = time.monotonic() + _DEAD_SEARCH_S
            if store.free_streams():
                results |= _reserve(store, refused)
        return results


def _reserve(store: BudgetStore, demands: Iterable[Demand]) -> dict[Demand, Refusal | None]:
    """Return the decisions about requests; none about those that were cancelled, which may be released already."""
    waiting = [demand for demand in demands if not demand.done.cancelled()]
    if not waiting:
        return {}
    return dict(zip(waiting, store.reserve([demand.reservation for demand in waiting]), strict=True))


def _ask_for_idle(
    store: BudgetStore, demands: Iterable[Demand], results: Mapping[Demand, Refusal | None], recalls: _Recalls
) -> _Recalls:
    """Give back this process's idle parts of what refuses requests; ask the others for theirs, but those in `recalls`.

    Returns the processes that were asked.
    """
    keys = {key for demand in demands for key in _list_counters(demand, results[demand])}
    limits = {key for demand in demands for key in _list_limits(results[demand])}
    store.leasing.return_idle(keys, hold=store.folding.hold)
    store.rate_leasing.return_idle(limits)
    return _Recalls(store.leasing.recall(keys, recalls.counters), store.rate_leasing.recall(limits, recalls.limits))


def _list_blocked(demands: Iterable[Demand], results: Mapping[Demand, Refusal | None]) -> list[Demand]:
    return [demand for demand in demands if _is_blocked(demand, results.get(demand))]


def _is_blocked(demand: Demand, result: Refusal | None) -> bool:
    """Return True if slices may be all that refuses a request: reservations, or units that are taken in advance."""
    if demand.reservation.forced or result is None:
        return False
    return isinstance(result, RateRefusal) or not result.exhausted


def _list_counters(demand: Demand, result: Refusal | None) -> Iterable[CounterKey]:
    if not isinstance(result, BudgetRefusal):
        return []
    reservation = demand.reservation
    return [key for key, _ in key_budgets(reservation.budgeted, reservation.at)]


def _list_limits(result: Refusal | None) -> Iterable[BucketKey]:
    return [find_bucket_key(state.claim) for state in result.states] if isinstance(result, RateRefusal) else []


def _is_due(store: BudgetStore, blocked: _Blocked, now: float) -> bool:
    """Return True if the processes that were asked have answered, or there is no more time for that."""
    if not blocked.is_asking:
        return now >= blocked.began + _COUNT_S
    if now >= blocked.began + _ANSWER_S:
        return True
    recalls = blocked.recalls
    return store.leasing.is_answered(recalls.counters) and store.rate_leasing.is_answered(recalls.limits)


def _is_out_of_streams(result: Refusal | None) -> bool:
    return isinstance(result, RateRefusal) and result.state.wait_s is None
