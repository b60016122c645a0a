"""Budgets on one event loop: requests reserve and release through a thread, which also counts the ledger's records.

    reserve ──┐                            ┌─ one transaction for all requests that wait ──> futures done
    release ──┤                            ├─ one transaction for all that were not sent, one for all that have ended
    end     ──┼──> queue ──> thread ───────┼─ fold: ten times to once a second (schedule.py)
    read    ──┘                            ├─ settlements and dead processes about each second
                                           └─ fault: reservations fail (503), releases and ends are retried

A second thread compares the counters with the ledger, which takes seconds if the ledger is large, and a third one reads
the counters for lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from tornado_proxy.budgets.backends import has_budgets, open_store
from tornado_proxy.budgets.deciding import Decisions, Demand
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.limits.rates import NOTHING_USED, RateEnd
from tornado_proxy.budgets.report_reader import ReportReader, run_in_thread
from tornado_proxy.budgets.schedule import Schedule
from tornado_proxy.budgets.store import BudgetStore
from tornado_proxy.budgets.work_queue import Read, Wake, Work, WorkQueue
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterPlan
from tornado_proxy.domain.budgets.rate_limits import RateUnit
from tornado_proxy.domain.budgets.refusal import Refusal
from tornado_proxy.domain.budgets.reservation import Reservation
from tornado_proxy.domain.budgets.warning import BudgetWarning
from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.observability import metrics

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Found = TypeVar("_Found")

#: Seconds between two comparisons with the ledger; more if one takes long, so that it is a small part of the CPU time.
_COMPARE_S = 300.0
_COMPARE_FACTOR = 50

#: Seconds that close() waits for each thread.
_CLOSE_S = 60.0

#: Seconds until the thread connects again after a fault.
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class BudgetLedger:
    """The ledger whose records are counted.

    Attributes:
        locks: The lock files of this machine's processes, with the id of this one.
    """

    address: LedgerAddress
    locks: ProcessLocks
    fsync: bool = False

    def open(self, slices: Slices | None = None) -> BudgetStore:
        """Return the budgets, with connections of their own; those with `slices` are for the thread that leases."""
        return open_store(self.address, self.locks, fsync=self.fsync, slices=slices)


@dataclass(frozen=True, slots=True)
class BudgetListeners:
    """Called on the event loop.

    Attributes:
        warning: A counter has reached a threshold, in one process.
        untold: The alert of a warning is not stored, in all processes; again after seconds, until forget_alert().
        brake: A limit of USD per minute was passed, in all processes; each second until forget_brake().
    """

    warning: Callable[[BudgetWarning], None] = lambda warning: None
    untold: Callable[[BudgetWarning], None] = lambda warning: None
    brake: Callable[[Brake], None] = lambda brake: None


class BudgetKeeper:
    """The budgets of one ledger, used from one event loop."""

    def __init__(self, ledger: BudgetLedger, listeners: BudgetListeners | None = None) -> None:
        self._ledger = ledger
        self._listeners = BudgetListeners() if listeners is None else listeners
        self._plan = CounterPlan()
        self._limits = BudgetLimits()
        #: Those of this process.
        self.slices = Slices()
        self._queue = WorkQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._auditor: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader = ReportReader(self._open_to_count)
        #: In the thread.
        self._decisions = Decisions(self._answer)
        #: Why the budgets cannot be written, None while they can.
        self._fault: str | None = None

    async def open(self, plan: CounterPlan) -> None:
        """Open the budgets and count the kinds that a configuration needs.

        Raises:
            LedgerUnavailable: a database cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        store = await run_in_thread(self._open, plan)
        # Daemon threads: one that hangs in a system call must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(store,), name="budgets", daemon=True)
        self._auditor = threading.Thread(target=self._compare_again_and_again, name="budget check", daemon=True)
        self._thread.start()
        self._auditor.start()

    async def exists(self) -> bool:
        """Return True if any process has counted budgets of the ledger.

        Raises:
            LedgerUnavailable: the database cannot be opened.
        """
        return await run_in_thread(has_budgets, self._ledger.address)

    async def follow(self, plan: CounterPlan) -> None:
        """Count what another configuration needs from now on.

        Raises:
            LedgerUnavailable: the budgets cannot be written.
        """
        # A large ledger takes seconds; budgets that are counted already admit requests meanwhile.
        await run_in_thread(self._register, plan)
        await self.read(lambda store: store.follow(plan, datetime.now(UTC)))
        self._plan = plan

    def watch(self, limits: BudgetLimits) -> None:
        """Warn of these limits from now on.  Never blocks."""
        self._limits = limits
        done: asyncio.Future[None] = self._running_loop.create_future()
        self._queue.put(Read(self._watch, done))
        done.add_done_callback(lambda watched: watched.exception())  # the thread logs it, and uses them when it is back

    async def forget_alert(self, warning: BudgetWarning) -> None:
        """Forget a warning whose alert is stored.

        Raises:
            LedgerUnavailable: the budgets cannot be written.
        """
        await self.read(lambda store: store.folding.forget_alert(warning))

    async def forget_brake(self, brake_id: str) -> None:
        """Forget a limit of USD per minute whose stop was made.

        Raises:
            LedgerUnavailable: the budgets cannot be written.
        """
        await self.read(lambda store: store.folding.forget_trip(brake_id))

    def take(self, reservation: Reservation) -> bool:
        """Take units of limits, and reserve from slices; return False if reserve() must decide."""
        rates, claims = self.slices.rates, reservation.claims
        if claims and not rates.take(reservation.request_id, claims):
            return False
        if not reservation.budgeted.budgets or self.slices.take(reservation):
            return True
        if claims:
            rates.end(reservation.request_id, NOTHING_USED)
        return False

    async def reserve(self, reservation: Reservation) -> Refusal | None:
        """Reserve the most that a request can cost; return the refusal of the budget or limit that does not admit it.

        Raises:
            LedgerUnavailable: the budgets cannot be written, so the request must not be sent.
        """
        done: asyncio.Future[Refusal | None] = self._running_loop.create_future()
        self._queue.put(Demand(reservation, done))
        try:
            return await done
        except asyncio.CancelledError:
            self.release(reservation.request_id)
            raise

    async def check(self, reservation: Reservation) -> Refusal | None:
        """Return the refusal that reserve() would return; reserve nothing.

        Raises:
            LedgerUnavailable: the budgets cannot be read.
        """
        return await self.read(lambda store: store.check(reservation))

    def release(self, request_id: str) -> None:
        """Free the reservation of a request that was not sent.  Never blocks."""
        has_ended = self._end_in_slices(request_id, NOTHING_USED)
        if not self.slices.release(request_id) and not has_ended:
            self._queue.put(request_id)

    def end(self, request_id: str, used: Mapping[RateUnit, int]) -> None:
        """Give back the units of limits that a request has taken and not used.  Never blocks."""
        if not self._end_in_slices(request_id, used):
            self._queue.put(RateEnd(request_id, used))

    def _end_in_slices(self, request_id: str, used: Mapping[RateUnit, int]) -> bool:
        has_ended = self.slices.rates.end(request_id, used)
        if has_ended and self.slices.rates.is_short:
            self._queue.put(Wake())
        return has_ended

    async def read(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        """Return the result of `query`, which runs in the thread.

        Raises:
            LedgerUnavailable: the budgets cannot be read.
        """
        done: asyncio.Future[_Result] = self._running_loop.create_future()
        self._queue.put(Read(query, done))
        return await done

    async def read_apart(self, query: Callable[[BudgetStore], _Result]) -> _Result:
        """Return the result of a query that takes long: it runs in a thread of its own, and requests go on meanwhile.

        Raises:
            LedgerUnavailable: the budgets cannot be read.
        """
        return await self._reader.read(query)

    async def close(self) -> None:
        """Count the ledger's records, and end the threads."""
        self._stopped.set()
        self._queue.put(None)
        await self._reader.close()
        for thread in (self._thread, self._auditor):
            if thread is not None:
                await asyncio.to_thread(thread.join, _CLOSE_S)

    @property
    def _running_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "open() comes first"
        return self._loop

    def _register(self, plan: CounterPlan) -> None:
        store = self._open_to_count()
        try:
            store.folding.register(plan.kinds, datetime.now(UTC))
        finally:
            store.close()

    def _open(self, plan: CounterPlan) -> BudgetStore:
        store = self._ledger.open(self.slices)
        store.register()
        store.follow(plan, datetime.now(UTC))
        self._plan = plan
        return store

    def _open_again(self) -> BudgetStore:
        store = self._open_to_count(self.slices)
        store.register()
        store.folding.register(self._plan.kinds, datetime.now(UTC))  # forgotten if another ledger was restored
        store.folding.limits = self._limits
        self.slices.forget()
        return store

    def _open_to_count(self, slices: Slices | None = None) -> BudgetStore:
        store, plan = self._ledger.open(slices), self._plan
        store.folding.hold, store.folding.brakes = plan.hold, plan.brakes
        return store

    def _watch(self, store: BudgetStore) -> None:
        store.folding.limits = self._limits
        store.folding.begin_warning_check(datetime.now(UTC))

    # In the thread.

    def _run(self, first: BudgetStore) -> None:
        store: BudgetStore | None = first
        schedule = Schedule()
        work = Work()
        while not work.is_last:
            work = self._queue.collect(work, min(schedule.wait_s(), self._decisions.wait_s()))
            try:
                store = store or self._open_again()
                if work.reserves:
                    schedule.expect_records()
                if self.slices.is_short:
                    schedule.expect_leases()
                self._serve(store, work)
                schedule.run(store)
                self._note_success()
                self._tell(self._listeners.warning, store.folding.take_warnings())
                self._tell(self._listeners.untold, schedule.find_untold(store))
                self._tell(self._listeners.brake, schedule.find_brakes(store))
            except Exception as error:  # noqa: BLE001  # the thread survives every fault and connects again
                self._fail(work, error)
                if store is not None:
                    self._tell(self._listeners.warning, store.folding.take_warnings())
                    store.close()
                store = None
                time.sleep(0 if work.is_last else _RETRY_S)
        if store is not None:
            # Otherwise the other processes give it back when they find this one dead.
            with contextlib.suppress(StoreError):
                store.give_back()
            self._tell(self._listeners.warning, store.folding.take_warnings())
            store.close()

    def _serve(self, store: BudgetStore, work: Work) -> None:
        # First: the next request of a client whose last one has ended, or was not sent, may need the units of that one.
        if work.ended:
            store.end(work.ended)
            work.ended.clear()
        if work.released:
            store.release(work.released)
            work.released.clear()
        if self.slices.rates.is_short:
            store.rate_leasing.sync()
        self._decisions.retry(store, is_last=work.is_last)
        if work.reserves:
            self._decisions.decide(store, work.reserves, is_last=work.is_last)
            work.reserves.clear()
        while work.reads:
            self._answer([(work.reads[0].done, work.reads[0].query(store))])
            del work.reads[0]

    def _tell(self, listener: Callable[[_Found], None], found: Iterable[_Found]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            for one in found:
                self._running_loop.call_soon_threadsafe(listener, one)

    def _answer(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._running_loop.call_soon_threadsafe(_set_results, results)

    def _note_success(self) -> None:
        if self._fault is not None:
            self._fault = None
            metrics.BUDGETS_HEALTHY.set(1)
            _log.warning("the budgets can be written again")

    def _fail(self, work: Work, error: Exception) -> None:
        reason = str(error) if isinstance(error, StoreError) else repr(error)
        if reason != self._fault:  # not at each attempt to connect again
            _log.error("the budgets cannot be written", extra={"reason": reason})
        self._fault = reason
        metrics.BUDGETS_HEALTHY.set(0)
        refusal = "no new requests with a budget while the budgets cannot be written"
        unavailable = LedgerUnavailable(f"{refusal}: {reason}", client_message=refusal)
        work.reserves += self._decisions.take_waiting()
        waiting: list[Demand | Read] = [*work.reserves, *work.reads]
        self._answer([(item.done, unavailable) for item in waiting])
        # A connection that breaks in COMMIT does not show whether the server committed; the requests are not sent.
        work.released += [item.reservation.request_id for item in work.reserves]

    def _compare_again_and_again(self) -> None:
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            began = time.monotonic()
            try:
                store = self._open_to_count()
                try:
                    store.folding.register(self._plan.kinds, datetime.now(UTC))  # as in _open_again()
                    difference = store.folding.correct(datetime.now(UTC))
                finally:
                    store.close()
            except Exception as error:  # noqa: BLE001  # the thread survives every fault and tries again
                _log.error("the budgets cannot be compared with the ledger", extra={"reason": str(error)})
            else:
                metrics.BUDGET_DIFFERENCE.set(float(difference))
                if difference:
                    _log.error("budget counters differed from the ledger", extra={"difference_usd": f"{difference:f}"})
            wait_s = max(_COMPARE_S, _COMPARE_FACTOR * (time.monotonic() - began))


def _set_results(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, result in results:
        if done.done():
            continue  # cancelled
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
