"""The counters and reservations of a ledger's budgets.  Synchronous; used by one thread.

    reserve   locks the counters of a request's budgets, checks their limits, and adds the most the request can cost;
              far from the limits, requests reserve from the slices of their process instead (slices.py)
    fold      adds the records that the ledger has committed to the counters, and frees their reservations
    release   frees the reservation of a request that was not sent
    end       gives back what a request that has ended took of limits (rates.py)

The ledger is the truth: a cursor says which of its records are counted, and it moves in the transaction that counts
them.  So each record is counted once, whichever process wrote it and whenever a process dies.

    reserve ──> open ── record ─────────────────────────────> counted, freed
                  ├──── record without a known cost ────────> held until its period ends
                  └──── record whose usage comes later ─────> pending ── settlement ──> counted, freed
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets import token_budgets
from tornado_proxy.budgets.counting.counters import (
    CounterChanges,
    CounterKey,
    Counters,
    encode_keys,
    key_budgets,
    lock_counter,
    make_state,
    read_counters,
    read_limited_counters,
    read_own_counters,
    write_counter,
)
from tornado_proxy.budgets.counting.cursor import read_cursor
from tornado_proxy.budgets.counting.folding import Folding, OpenScratch
from tornado_proxy.budgets.counting.ledger_records import RecordGroup
from tornado_proxy.budgets.dead_processes import DeadProcesses
from tornado_proxy.budgets.leases.leasing import Leasing
from tornado_proxy.budgets.leases.slices import Slices
from tornado_proxy.budgets.limits.rate_leasing import RateLeasing
from tornado_proxy.budgets.limits.rates import NOTHING_USED, LockedBuckets, RateEnd, Rates
from tornado_proxy.budgets.open_reservations import (
    OpenReservation,
    ReservationsByCounter,
    iterate_reservations,
    sum_by_counter,
)
from tornado_proxy.budgets.schema import create_tables
from tornado_proxy.domain.budgets.budget import Budget, TokenBudget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import CounterPlan, CounterState
from tornado_proxy.domain.budgets.refusal import BudgetRefusal, Refusal
from tornado_proxy.domain.budgets.reservation import Reservation
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.ledger.database import Database, Liveness, StoreError
from tornado_proxy.ledger.dialect import Dialect, Insert, Values
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

INSERT_RESERVATIONS = Insert(
    "budget_reservations",
    (
        "request_id",
        "writer",
        "state",
        "started_at",
        "total",
        "subtotal",
        "counters",
        "counted_total",
        "counted_subtotal",
    ),
    "request_id",
)
# A process that has lost its connection can be found dead, and its requests be held.
_SELECT = "SELECT total, subtotal, counters FROM budget_reservations WHERE request_id = ? AND state IN ('open', 'held')"
_DELETE = "DELETE FROM budget_reservations WHERE request_id = ?"
_SELECT_ANY = "SELECT 1 FROM budget_reservations WHERE writer = ? AND state = 'open' LIMIT 1"


@dataclass(frozen=True, slots=True)
class BudgetDatabases:
    """The database of the budgets and the ledger, which PostgreSQL has in one, with the processes that write them.

    `open_scratch` opens an empty SQLite file.
    """

    budgets: Database
    ledger: Database
    dialect: Dialect
    locks: ProcessLocks
    liveness: Liveness
    open_scratch: OpenScratch


class BudgetStore:
    """The budgets of one ledger.

    Methods raise StoreError if a database fails.
    """

    def __init__(self, databases: BudgetDatabases, slices: Slices) -> None:
        """Make the tables that do not exist; `slices` are those of this process."""
        databases.budgets.run_script(create_tables(databases.dialect))
        self._databases = databases
        self._budgets = databases.budgets
        self._row_lock = databases.dialect.row_lock
        self.rates = Rates(databases.budgets, databases.dialect, databases.locks.writer_id)
        self.folding = Folding((databases.budgets, databases.ledger), databases.dialect, databases.open_scratch)
        self.folding.begin()
        self._slices = slices
        self.leasing = Leasing(
            databases.budgets, databases.ledger, databases.dialect, databases.locks.writer_id, slices
        )
        self.folding.on_counted = self._note_counted
        self.rate_leasing = RateLeasing(
            databases.budgets, databases.dialect, databases.locks.writer_id, self.rates, slices.rates
        )
        self._dead_processes = DeadProcesses(databases.budgets, databases.locks, databases.liveness)

    def register(self) -> None:
        """Mark this process as alive while this connection or that of the ledger's writer lasts."""
        self._databases.liveness.register()

    def follow(self, plan: CounterPlan, now: datetime) -> None:
        """Count the kinds of a configuration from now on, and for the periods that contain `now`."""
        self.folding.hold, self.folding.brakes = plan.hold, plan.brakes
        self.folding.register(plan.kinds, now)
        # No other process may have counted for a long time.
        self.folding.fold()

    def reserve(self, reservations: Sequence[Reservation]) -> list[Refusal | None]:
        """Reserve for each request, all of its budgets and limits or none; return the refusals."""
        keyed = [list(key_budgets(reservation.budgeted, reservation.at)) for reservation in reservations]
        with self._budgets.transaction():
            buckets = self.rates.lock(claim for reservation in reservations for claim in reservation.claims)
            keys = sorted({key for own in keyed for key, _ in own})
            changed = _Counters({key: lock_counter(self._budgets, self._row_lock, key) for key in keys})
            results = [
                self._reserve(reservation, own, changed, buckets)
                for reservation, own in zip(reservations, keyed, strict=True)
            ]
            self._budgets.insert(INSERT_RESERVATIONS, changed.reservations)
            for key in changed.written:
                write_counter(self._budgets, key, *changed.states[key])
            self.rates.write(buckets)
        return results

    def _reserve(
        self,
        reservation: Reservation,
        keyed: Sequence[tuple[CounterKey, Budget]],
        counters: _Counters,
        buckets: LockedBuckets,
    ) -> Refusal | None:
        refused = (counters.check(key, budget, reservation) for key, budget in keyed)
        refusal = buckets.check(reservation.claims) or next((one for one in refused if one is not None), None)
        if refusal is not None and not reservation.forced:
            return refusal
        self.rates.take(reservation.request_id, reservation.claims, buckets)
        if not keyed:
            return refusal
        amounts = {key: reservation.amount(budget.kind.amount) for key, budget in keyed}
        for key, amount in amounts.items():
            counters.add(key, amount)
        counters.reservations.append(
            (
                reservation.request_id,
                self._databases.locks.writer_id,
                "open",
                format_time(reservation.at),
                f"{reservation.bound.total:f}",
                f"{reservation.bound.subtotal:f}",
                encode_keys(tuple(sorted(amounts))),
                "0",
                "0",
            )
        )
        return refusal

    def check(self, reservation: Reservation) -> BudgetRefusal | None:
        """Return the refusal that reserve() would return; reserve nothing."""
        with self._budgets.transaction():
            keys = sorted(_list_keys([reservation]))
            counters = _Counters({key: lock_counter(self._budgets, self._row_lock, key) for key in keys})
            keyed = key_budgets(reservation.budgeted, reservation.at)
            refusals = (counters.check(key, budget, reservation) for key, budget in keyed)
            return next((refusal for refusal in refusals if refusal is not None), None)

    def release(self, request_ids: Iterable[str]) -> None:
        """Free the reservations of requests that were not sent."""
        ids = list(request_ids)
        with self._budgets.transaction():
            changes = CounterChanges()
            for request_id in ids:
                for total, subtotal, keys in self._budgets.fetch_rows(f"{_SELECT} {self._row_lock}", (request_id,)):
                    changes.free(str(keys), Decimal(str(total)), Decimal(str(subtotal)))
                self._budgets.run(_DELETE, (request_id,))
            # Locks in the order of reserve(): buckets first.
            self.rates.end(RateEnd(request_id, NOTHING_USED) for request_id in ids)
            changes.apply(self._budgets, self._row_lock)

    def end(self, ends: Iterable[RateEnd]) -> None:
        """Give back what requests that have ended took of limits and did not use."""
        with self._budgets.transaction():
            self.rates.end(ends)

    def free_streams(self) -> bool:
        """Free the streams of processes that have died; return True if there were any."""
        with self._budgets.transaction():
            return self.rates.free_dead(self._dead_processes.is_certain)

    def has_open(self) -> bool:
        """Return True if a request of this process that has reserved here is under way."""
        return bool(self._budgets.fetch_rows(_SELECT_ANY, (self._databases.locks.writer_id,)))

    @property
    def has_slices(self) -> bool:
        """True if this process has leased anything, or is about to."""
        return bool(self._slices.slices or self._slices.requests or self.has_rate_slices)

    @property
    def has_rate_slices(self) -> bool:
        """True if this process has leased units of limits, or is about to: they are valid for moments."""
        return bool(self._slices.rates.slices)

    def _note_counted(self, seqs: range, groups: Sequence[RecordGroup]) -> None:
        self.leasing.note_counted(seqs, groups, hold=self.folding.hold)

    @property
    def is_far(self) -> bool:
        """True if all counters that this process has leased have much left, and projects no limit of USD per minute."""
        return not (self._slices.is_near or self.folding.brakes)

    def count(self) -> int:
        """Count some of the records that the ledger has committed, and free their reservations; return the cursor."""
        self.folding.fold_batch()
        self.sync_leases()
        return self.read_cursor()

    def read_cursor(self) -> int:
        """Return the seq of the last record of the ledger that is counted."""
        return read_cursor(self._budgets)

    def answer_recalls(self) -> None:
        """Give back what other processes need, and lease units of limits, which cannot be taken for long."""
        self.rate_leasing.sync()
        began = time.monotonic()
        if self.leasing.is_recalled():
            self.leasing.sync(hold=self.folding.hold)
        self._slices.renew(began)

    def sync_leases(self) -> None:
        """Lease, trim and give back slices of counters and limits."""
        self.rate_leasing.sync()
        began = time.monotonic()
        self.leasing.sync(hold=self.folding.hold)
        self._slices.renew(began)

    def give_back(self) -> None:
        """Give back all slices before the process ends: its requests have ended, and the ledger has their records."""
        self.folding.fold()
        self._slices.return_idle(list(self._slices.slices))
        self._slices.rates.return_idle(list(self._slices.rates.slices))
        self.sync_leases()
        self.leasing.forget_held()

    def free_dead(self) -> None:
        """Free the slices and reservations of processes that have died."""
        self._dead_processes.free(self.folding, self.leasing, self.rates)

    def close(self) -> None:
        """Close the connections."""
        for db in {self._budgets, self._databases.ledger}:
            with contextlib.suppress(StoreError):
                db.close()

    def list_counters(self) -> list[CounterState]:
        """Return all counters; what processes have leased and not used is not reserved."""
        idle = self.leasing.read_idle()
        return _subtract_idle(read_counters(self._budgets), idle)

    def list_limited_counters(self, limits: BudgetLimits, now: datetime) -> list[CounterState]:
        """Return the counters that budgets limit, as list_counters(); of many those with the highest figures."""
        idle = self.leasing.read_idle()
        return _subtract_idle(read_limited_counters(self._budgets, limits, now), idle)

    def list_counters_of(self, spender: Spender) -> list[CounterState]:
        """Return the counters that count a spender, as list_counters()."""
        idle = self.leasing.read_idle()
        return [
            state
            for kind in self.folding.read_kinds()
            for subject in spender.subjects(kind)
            for state in _subtract_idle(read_own_counters(self._budgets, kind, spender.project_id, subject), idle)
        ]

    def note_stated(self, budgets: Iterable[TokenBudget]) -> None:
        """Store budgets that tokens state."""
        token_budgets.store(self._budgets, budgets)

    def list_stated(self, now: datetime) -> list[TokenBudget]:
        """Return the budgets that tokens state which have not expired, and have sent a request."""
        return token_budgets.list_valid(self._budgets, now)

    def iterate_reservations(self) -> Iterator[OpenReservation]:
        """Yield the reservations that are not freed yet, oldest first; use nothing else of the store before the end."""
        return iterate_reservations(self._budgets)

    def sum_reservations(self, counters: Iterable[CounterState], *, list_oldest: bool = False) -> ReservationsByCounter:
        """Return the reservations of counters: their sums, and with `list_oldest` the oldest ones of each."""
        return sum_by_counter(self.iterate_reservations(), counters, list_oldest=list_oldest)


def _subtract_idle(counters: Counters, idle: Mapping[CounterKey, Decimal]) -> list[CounterState]:
    # The two were read one after the other: an amount given back in between would make a counter negative.
    return [
        replace(state, reserved=max(Decimal(0), state.reserved - idle[key])) if key in idle else state
        for key, state in counters.items()
    ]


class _Counters:
    """Counters that are locked in a transaction, with the reservations that it has made so far."""

    def __init__(self, states: dict[CounterKey, tuple[Decimal, Decimal]]) -> None:
        self.states = states
        self.written: set[CounterKey] = set()
        #: The rows of the reservations.
        self.reservations: list[Values] = []

    def check(self, key: CounterKey, budget: Budget, reservation: Reservation) -> BudgetRefusal | None:
        """Return the refusal of a request, None if the budget admits it."""
        settled, reserved = self.states[key]
        bound = reservation.amount(budget.kind.amount)
        admitted = settled + reserved + bound <= budget.limit if budget.strict else settled + reserved < budget.limit
        return None if admitted else BudgetRefusal(budget, make_state(key, key.period_end, settled, reserved), bound)

    def add(self, key: CounterKey, amount: Decimal) -> None:
        """Reserve `amount`."""
        settled, reserved = self.states[key]
        self.states[key] = (settled, reserved + amount)
        self.written.add(key)


def _list_keys(reservations: Sequence[Reservation]) -> set[CounterKey]:
    return {key for reservation in reservations for key, _ in key_budgets(reservation.budgeted, reservation.at)}
