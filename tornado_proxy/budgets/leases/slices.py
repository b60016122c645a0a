"""The slices of counters that this process has leased, in memory: requests reserve from them without a transaction.

    granted   the least amount that the counter in the database holds for this process
    idle      the part of it that further requests can take
    used      granted - idle: the bounds of requests under way, each until its record is counted

A slice never has more than the counter had left when it was leased, so whatever is reserved from it exceeds no limit, a
strict one neither.  leasing.py leases, trims and gives back; the event loop takes and releases; a lock is held for some
microseconds.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from tornado_proxy.budgets.counting.counters import CounterKey, key_budgets
from tornado_proxy.budgets.leases.slice import Slice, to_units_down, to_units_up, to_usd
from tornado_proxy.budgets.limits.rate_slices import RateSlices
from tornado_proxy.domain.budgets.counter import Amount
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.usage import Basis

#: Seconds for which slices are used after the last transaction or query that succeeded.
_VALID_S = 5.0

#: Entries of the cache of keys.
_MAX_CACHED = 4096

#: Requests between two syncs that are noted; with more, the next lease is for as many.
_MAX_ASKING = 4096


class _Claim(msgspec.Struct, frozen=True, eq=False):
    """The claim of a spender on a slice: for totals or subtotals, below the lowest limit of its budgets."""

    slice: Slice
    limit: Decimal
    is_total: bool


class _SpenderClaims(msgspec.Struct, frozen=True):
    """The claims of one spender with the same budgets on the slices of one hour."""

    begin: datetime
    end: datetime
    claims: tuple[_Claim, ...]


class _Part(msgspec.Struct, frozen=True, eq=False):
    """The part of a bound in a slice, which must have been leased for at most `limit`."""

    slice: Slice
    limit: Decimal
    amount: int


class SlicedBound(msgspec.Struct, frozen=True, eq=False):
    """A bound with its parts of slices: one object for all requests of a spender that share the bound.

    It holds for requests that begin from `begin` on and before `end`, aware UTC.
    """

    bound: CostBound
    begin: datetime
    end: datetime
    parts: tuple[_Part, ...]

    @property
    def amounts(self) -> dict[CounterKey, Decimal]:
        """The amounts by counter, in the order of locks."""
        return dict(sorted((part.slice.key, to_usd(part.amount)) for part in self.parts))

    def narrow(self, since: datetime, until: datetime) -> SlicedBound:
        """Return it for those of its requests that begin from `since` on and before `until`."""
        return replace(self, begin=max(self.begin, since), end=min(self.end, until))


@dataclass(slots=True)
class Slices:
    """The slices of this process, and its requests that have reserved from them.

    Attributes:
        slices: The slices by counter.
        requests: The bounds that requests have reserved, by request id, until their records are counted.
    """

    slices: dict[CounterKey, Slice] = field(default_factory=dict)
    # Requests share the values: an object of each request would stay in memory for a second (docs/performance.md).
    requests: dict[str, SlicedBound] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Those of limits of requests, tokens and streams.
    rates: RateSlices = field(default_factory=RateSlices)
    #: True if a request has found too little in a slice that is in use.
    is_short: bool = False
    #: True if the counter of one has little left.
    is_near: bool = False
    #: Of leasing.py, which begins anew after a fault: the seq of the last record that was looked for among the
    #: requests, and the requests to hold, whose records have no final cost, by their ids.
    seen: int = 0
    to_hold: dict[str, tuple[SlicedBound, Basis]] = field(default_factory=dict)
    _valid_until: float = float("-inf")
    _claims: dict[BudgetedSpender, _SpenderClaims] = field(default_factory=dict)
    #: Also those that were dropped, while a claim or a bound has them: a counter never has two.
    _known: WeakValueDictionary[CounterKey, Slice] = field(default_factory=WeakValueDictionary)
    #: The bounds of the requests that their slices were not told of.
    _asking: deque[SlicedBound] = field(default_factory=lambda: deque(maxlen=_MAX_ASKING))

    def take(self, reservation: Reservation) -> bool:
        """Reserve from slices; return False if one has too little: then the database decides."""
        sliced = self.divide(reservation.budgeted, reservation.bound, reservation.at)
        return self.take_sliced(reservation.request_id, sliced)

    def divide(self, budgeted: BudgetedSpender, bound: CostBound, at: datetime) -> SlicedBound:
        """Return a bound with its parts of the slices of a spender's budgets, for requests of the hour of `at`."""
        with self.lock:
            found = self._claims.get(budgeted)
            if found is None or not found.begin <= at < found.end:
                found = self._make_claims(budgeted, at)
        parts = [
            _Part(claim.slice, claim.limit, to_units_up(bound.total if claim.is_total else bound.subtotal))
            for claim in found.claims
        ]
        return SlicedBound(bound, found.begin, found.end, tuple(parts))

    def take_sliced(self, request_id: str, sliced: SlicedBound) -> bool:
        """Reserve as take() does."""
        now = monotonic()
        with self.lock:
            is_taken = now < self._valid_until
            self._asking.append(sliced)
            for part in sliced.parts:
                used = part.slice
                used.idle = idle = used.idle - part.amount
                # Nearly always the same object, which takes a fraction of the comparison.
                if idle < 0 or (part.limit is not used.limit and part.limit < used.limit):
                    is_taken = False
            if is_taken:
                self.requests[request_id] = sliced
            else:
                self._put_back(sliced, now)
        return is_taken

    def _put_back(self, sliced: SlicedBound, now: float) -> None:
        """Put back the parts of a bound of which too little was idle.

        The next sync comes soon if it can lease something for it.
        """
        parts = sliced.parts
        short = [part for part in parts if part.slice.idle < 0 or part.limit < part.slice.limit]
        for part in parts:
            part.slice.idle += part.amount
            self.slices[part.slice.key] = part.slice  # list_due() may have dropped it
        _note_asks(Counter(self._drain_asking()), now)
        if any(part.slice.is_leasable(part.limit, now) for part in short):
            self.is_short = True

    def _drain_asking(self) -> list[SlicedBound]:
        """Return the bounds of the requests that their slices were not told of; the lock is held."""
        asking = list(self._asking)
        self._asking.clear()
        return asking

    def release(self, request_id: str) -> bool:
        """Free the reservation of a request that is not sent; return False if it has none here."""
        with self.lock:
            sliced = self.requests.pop(request_id, None)
            if sliced is not None:
                for part in sliced.parts:
                    part.slice.idle += part.amount
                    part.slice.has_changed = True
        return sliced is not None

    def count(self, request_ids: Iterable[str]) -> dict[str, SlicedBound]:
        """Drop the requests whose records are counted, with their parts of slices; return what they have reserved."""
        pop = self.requests.pop
        counted = {request_id: sliced for request_id in request_ids if (sliced := pop(request_id, None)) is not None}
        sums = _sum_by_slice(counted.values())
        with self.lock:  # as short as possible: the event loop may wait for it
            for one, amount in sums.items():
                one.granted -= amount
                one.has_changed = True
        return counted

    def renew(self, began: float) -> None:
        """Use slices for the next seconds: the database has answered queries that began at `began`, monotonic."""
        self._valid_until = began + _VALID_S

    def list_due(self, now: float) -> list[CounterKey]:
        """Return the counters whose slices are to be leased, trimmed or written, in the order of locks."""
        with self.lock:
            asking = self._drain_asking()
        asks = Counter(asking)  # without the lock: they can be thousands
        with self.lock:
            _note_asks(asks, now)
            self.is_near = any([one.is_near for one in self.slices.values()])
            due = []
            for key, one in list(self.slices.items()):
                if one.is_unused(now):
                    del self.slices[key]
                elif one.has_changed or (one.idle and not one.is_wanted(now)):
                    due.append(key)
            self.is_short = False
        return sorted(due)

    def begin_lease(self, key: CounterKey) -> Decimal:
        """Return the limit for which settle_lease() leases: the lowest one of the requests since the last sync.

        Requests of a lower one that come meanwhile take nothing from the slice, and are for the next sync.
        """
        with self.lock:
            one = self.slices[key]
            if one.asked is not None:
                one.limit, one.asked = one.asked, None
                one.bound, one.asked_bound = one.asked_bound, 0
            return one.limit

    def settle_lease(self, key: CounterKey, left: Decimal, now: float) -> tuple[Decimal, Decimal]:
        """Decide how much a slice is to have; return that, and the part in use.

        An amount that is given back cannot be taken any more when this returns; an added one not before grant().

        Args:
            key: The counter.
            left: The rest of the counter beyond the slices of others, by the limit of begin_lease(); this slice's own
                part counts as left.
            now: Monotonic time.
        """
        with self.lock:
            one = self.slices[key]
            used = one.used
            lease = one.find_lease(to_units_down(left) - used, now)
            self.is_near = self.is_near or one.is_near
            if not lease:
                one.denied_at = now
            if one.idle > lease:
                one.granted, one.idle = used + lease, lease
            one.has_changed = one.asked is not None
            return to_usd(used + lease), to_usd(used)

    def grant(self, granted: Mapping[CounterKey, Decimal]) -> None:
        """Let requests take from the amount that the database has leased."""
        with self.lock:
            for key, usd in granted.items():
                one, amount = self.slices[key], to_units_down(usd)
                one.idle += amount - one.granted
                one.granted = amount

    def return_idle(self, keys: Iterable[CounterKey]) -> bool:
        """Give the idle part back with the next sync; return True if anything is.

        Requests of this or another process need it.
        """
        now = monotonic()
        with self.lock:
            own = [self.slices[key] for key in keys if key in self.slices]
            for one in own:
                one.recalled_at = now
                one.has_changed = True
            return any(one.idle for one in own)

    def forget(self) -> None:
        """Write all slices again: the database may have lost them."""
        with self.lock:
            for one in self.slices.values():
                one.has_changed = True
        self.rates.forget()

    def _make_claims(self, budgeted: BudgetedSpender, at: datetime) -> _SpenderClaims:
        """Return the claims of a request, and keep them for the next ones."""
        if len(self._claims) >= _MAX_CACHED:
            self._claims.clear()
        claims: dict[CounterKey, _Claim] = {}
        for of, budget in key_budgets(budgeted, at):
            limit = min(budget.limit, claims[of].limit) if of in claims else budget.limit
            one = self._known.get(of)
            if one is None:
                one = self._known[of] = Slice(of, limit=limit)
            self.slices[of] = one
            claims[of] = _Claim(one, limit, budget.kind.amount is Amount.TOTAL)
        begin = at.replace(minute=0, second=0, microsecond=0)
        made = _SpenderClaims(begin, begin + timedelta(hours=1), tuple(claims.values()))
        self._claims[budgeted] = made
        return made


def _note_asks(asks: Mapping[SlicedBound, int], now: float) -> None:
    """Tell the slices of the requests that have asked; the lock is held."""
    for sliced, count in asks.items():
        for part in sliced.parts:
            part.slice.note(count, part.amount, part.limit, now)


def _sum_by_slice(bounds: Iterable[SlicedBound]) -> Mapping[Slice, int]:
    sums: defaultdict[Slice, int] = defaultdict(int)
    for sliced, count in Counter(bounds).items():
        for part in sliced.parts:
            sums[part.slice] += count * part.amount
    return sums
