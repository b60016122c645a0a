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
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter

import msgspec

from tornado_proxy.budgets.counting.counters import CounterKey, key_budgets
from tornado_proxy.budgets.limits.rate_slices import RateSlices
from tornado_proxy.domain.budgets.counter import Amount
from tornado_proxy.domain.budgets.reservation import BudgetedSpender, Reservation
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.usage import Basis

_ZERO = Decimal(0)

# In C: this is done for each request.
_get_total, _get_subtotal = attrgetter("total"), attrgetter("subtotal")

#: The part of a counter's rest that a process leases at most: a tenth.
_SHARE = 10

#: The most that a process leases: this many times the largest bound, or this many USD if that is more; with many
#: requests, this many times those between two syncs.
_MIN_BOUNDS = 256
_SPARE = 4
_MAX_USD = Decimal(1)

#: Requests of a counter within _IDLE_S that make a lease worthwhile.
_MIN_ASKS = 2

#: Seconds without a request after which the idle part is given back; the second while the counter has much left, so
#: that requests after a pause find it.
_IDLE_S, _FAR_IDLE_S = 2.0, 30.0

#: Seconds in which a counter is not leased again after another process has asked for the idle part.
_RECALLED_S = 5.0

#: Seconds until the next attempt to lease after one that got nothing: near the limit, requests reserve one by one.
_DENIED_S = 1.0

#: Seconds for which slices are used after the last transaction or query that succeeded.
_VALID_S = 5.0

#: Entries of the cache of keys.
_MAX_CACHED = 4096

#: Requests between two syncs that are noted; with more, the next lease is for as many.
_MAX_ASKING = 4096


@dataclass(slots=True, eq=False)
class Slice:
    """A slice of one counter.

    Attributes:
        key: The key of the counter.
        limit: The lowest limit that it was leased for.
        asked: The lowest limit that requests had since the last sync; None if there was none.
        bound: The largest bound of the requests before the last sync; `asked_bound` is that of the requests since.
        asks: Requests since `asked_at` was long ago and nothing idle; `new_asks` are those since the last sync, and
            `need` those of the syncs before it, of which each counts half of the next.
        asked_at: When a sync found the last requests, or one found too little; monotonic.
        recalled_at: When another process asked for the idle part, monotonic.
        denied_at: When nothing could be leased, monotonic.
        is_near: True if the counter has so little left that the last lease was smaller than wanted.
        has_changed: True if the row in the database is not up to date.
        claimed_by: The keys of the cached claims on it.
    """

    key: CounterKey
    granted: Decimal = _ZERO
    idle: Decimal = _ZERO
    limit: Decimal = _ZERO
    asked: Decimal | None = None
    bound: Decimal = _ZERO
    asked_bound: Decimal = _ZERO
    asks: int = 0
    new_asks: int = 0
    need: int = 0
    asked_at: float = float("-inf")
    recalled_at: float = float("-inf")
    denied_at: float = float("-inf")
    is_near: bool = False
    has_changed: bool = False
    claimed_by: set[BudgetedSpender] = field(default_factory=set)

    @property
    def used(self) -> Decimal:
        """The bounds of requests under way."""
        return self.granted - self.idle

    def note(self, asks: int, bound: Decimal, limit: Decimal, at: float) -> None:
        """Note requests, the largest bound of which is `bound`; `at` is monotonic."""
        # Requests count on after a pause if the slice still has an idle part.
        self.asks = self.asks + asks if self.idle or at - self.asked_at < _IDLE_S else asks
        self.new_asks += asks
        self.asked_at = at
        self.asked_bound = max(self.asked_bound, bound)
        self.asked = limit if self.asked is None else min(self.asked, limit)
        self.has_changed = True

    def is_wanted(self, now: float) -> bool:
        """Return True if requests are likely to take from it soon."""
        is_used = now - self.asked_at < (_IDLE_S if self.is_near else _FAR_IDLE_S)
        return self.asks >= _MIN_ASKS and is_used and now - self.recalled_at >= _RECALLED_S

    def is_leasable(self, limit: Decimal, now: float) -> bool:
        """Return True if a sync may lease more of it, or has to give back what exceeds a lower limit."""
        return (self.asks >= _MIN_ASKS and now - self.denied_at >= _DENIED_S) or limit < self.limit

    def find_lease(self, left: Decimal, now: float) -> Decimal:
        """Return the amount to be idle, of `left` that the counter has left."""
        share = left / _SHARE
        self.need, self.new_asks = max(self.new_asks, self.need // 2), 0
        wanted = max(_MAX_USD, max(_MIN_BOUNDS, _SPARE * self.need) * self.bound)
        self.is_near = share < wanted
        return min(share, wanted) if self.is_wanted(now) and share >= self.bound else _ZERO


class LeasedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request under way that has reserved from slices: its claims on them, and what its reservation would state."""

    claims: tuple[_Claim, ...]
    bound: CostBound
    started_at: datetime

    @property
    def amounts(self) -> dict[CounterKey, Decimal]:
        """The amounts by counter, in the order of locks."""
        total, subtotal = self.bound.total, self.bound.subtotal
        amounts = {claim.slice.key: total if claim.is_total else subtotal for claim in self.claims}
        return dict(sorted(amounts.items()))


class _Claim(msgspec.Struct, frozen=True, eq=False):
    """The part of a request in a slice: its total or its subtotal, below the lowest limit of its budgets."""

    slice: Slice
    limit: Decimal
    is_total: bool


class _SpenderClaims(msgspec.Struct, frozen=True):
    """The claims of the requests of one spender with the same budgets that begin in one hour."""

    begin: datetime
    end: datetime
    claims: tuple[_Claim, ...]


@dataclass(slots=True)
class Slices:
    """The slices of this process, and its requests that have reserved from them."""

    slices: dict[CounterKey, Slice] = field(default_factory=dict)
    requests: dict[str, LeasedRequest] = field(default_factory=dict)
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
    to_hold: dict[str, tuple[LeasedRequest, Basis]] = field(default_factory=dict)
    _valid_until: float = float("-inf")
    _claims: dict[BudgetedSpender, _SpenderClaims] = field(default_factory=dict)
    #: The requests that their slices were not told of.
    _asking: deque[LeasedRequest] = field(default_factory=lambda: deque(maxlen=_MAX_ASKING))

    def take(self, reservation: Reservation) -> bool:
        """Reserve from slices; return False if one has too little: then the database decides."""
        return self.take_bound(reservation.request_id, reservation.budgeted, reservation.bound, reservation.at)

    def take_bound(self, request_id: str, budgeted: BudgetedSpender, bound: CostBound, at: datetime) -> bool:
        """Reserve as take() does, for a request that needs no reservation but this one.

        Args:
            request_id: The id of the request.
            budgeted: Whom it is charged to, and the budgets that must have room for it.
            bound: The most that it can cost.
            at: When it began, aware UTC.
        """
        total, subtotal, now = bound.total, bound.subtotal, time.monotonic()
        with self.lock:
            found = self._claims.get(budgeted)
            if found is None or not found.begin <= at < found.end:
                found = self._make_claims(budgeted, at)
            request, is_taken = LeasedRequest(found.claims, bound, at), now < self._valid_until
            self._asking.append(request)
            for claim in found.claims:
                used = claim.slice
                used.idle -= total if claim.is_total else subtotal
                if used.idle < _ZERO or claim.limit < used.limit:
                    is_taken = False
            if is_taken:
                self.requests[request_id] = request
            else:
                self._put_back(request, now)
        return is_taken

    def _put_back(self, request: LeasedRequest, now: float) -> None:
        """Put back the amounts of a request for which too little was idle.

        The next sync comes soon if it can lease something for it.
        """
        short = [claim for claim in request.claims if claim.slice.idle < _ZERO or claim.limit < claim.slice.limit]
        for used, amount in _sum_by_slice([request]).items():
            used.idle += amount
        _note_asks(_group_bounds(self._drain_asking()), now)
        if any(claim.slice.is_leasable(claim.limit, now) for claim in short):
            self.is_short = True

    def _drain_asking(self) -> list[LeasedRequest]:
        """Return the requests that their slices were not told of; the lock is held."""
        asking = list(self._asking)
        self._asking.clear()
        return asking

    def release(self, request_id: str) -> bool:
        """Free the reservation of a request that is not sent; return False if it has none here."""
        with self.lock:
            request = self.requests.pop(request_id, None)
            if request is not None:
                for one, amount in _sum_by_slice([request]).items():
                    one.idle += amount
                    one.has_changed = True
        return request is not None

    def count(self, request_ids: Iterable[str]) -> dict[str, LeasedRequest]:
        """Drop the requests whose records are counted, with their parts of slices; return them."""
        pop = self.requests.pop
        counted = {request_id: request for request_id in request_ids if (request := pop(request_id, None)) is not None}
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
        asks = _group_bounds(asking)  # without the lock: they can be thousands
        with self.lock:
            _note_asks(asks, now)
            self.is_near = any([one.is_near for one in self.slices.values()])
            due = []
            for key, one in list(self.slices.items()):
                is_empty = not (one.granted or one.idle or one.has_changed)
                if is_empty and now - one.asked_at >= _IDLE_S:
                    del self.slices[key]
                    for cached in one.claimed_by:
                        self._claims.pop(cached, None)
                elif one.has_changed or (one.idle and not one.is_wanted(now)):
                    due.append(key)
            self.is_short = False
        return sorted(due)

    def settle_lease(self, key: CounterKey, left: Decimal, now: float) -> tuple[Decimal, Decimal]:
        """Decide how much a slice is to have; return that, and the part in use.

        An amount that is given back cannot be taken any more when this returns; an added one not before grant().

        Args:
            key: The counter.
            left: The rest of the counter beyond the slices of others, by the limit of the slice; this slice's own
                part counts as left.
            now: Monotonic time.
        """
        with self.lock:
            one = self.slices[key]
            if one.asked is not None:
                one.limit, one.asked = one.asked, None
                one.bound, one.asked_bound = one.asked_bound, _ZERO
            used = one.used
            lease = one.find_lease(left - used, now)
            self.is_near = self.is_near or one.is_near
            if not lease:
                one.denied_at = now
            if one.idle > lease:
                one.granted, one.idle = used + lease, lease
            one.has_changed = False
            return used + lease, used

    def find_limit(self, key: CounterKey) -> Decimal:
        """Return the limit that settle_lease() leases for."""
        one = self.slices[key]
        return one.limit if one.asked is None else one.asked

    def grant(self, granted: Mapping[CounterKey, Decimal]) -> None:
        """Let requests take from the amount that the database has leased."""
        with self.lock:
            for key, amount in granted.items():
                one = self.slices[key]
                one.idle += amount - one.granted
                one.granted = amount

    def return_idle(self, keys: Iterable[CounterKey]) -> bool:
        """Give the idle part back with the next sync; return True if anything is.

        Requests of this or another process need it.
        """
        now = time.monotonic()
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

    def _make_claims(self, budgeted: BudgetedSpender, at: datetime) -> _SpenderClaims:
        """Return the claims of a request, and keep them for the next ones."""
        if len(self._claims) >= _MAX_CACHED:
            self._claims.clear()
            for claimed in self.slices.values():
                claimed.claimed_by.clear()
        claims: dict[CounterKey, _Claim] = {}
        for of, budget in key_budgets(budgeted, at):
            limit = min(budget.limit, claims[of].limit) if of in claims else budget.limit
            one = self.slices.get(of)
            if one is None:
                one = self.slices[of] = Slice(of, limit=limit)
            one.claimed_by.add(budgeted)
            claims[of] = _Claim(one, limit, budget.kind.amount is Amount.TOTAL)
        begin = at.replace(minute=0, second=0, microsecond=0)
        made = _SpenderClaims(begin, begin + timedelta(hours=1), tuple(claims.values()))
        self._claims[budgeted] = made
        return made


def _group_bounds(requests: Iterable[LeasedRequest]) -> Mapping[tuple[_Claim, ...], list[CostBound]]:
    """Return the bounds of requests by their claims: most share these with others."""
    bounds: defaultdict[tuple[_Claim, ...], list[CostBound]] = defaultdict(list)
    for request in requests:
        bounds[request.claims].append(request.bound)
    return bounds


def _note_asks(asks: Mapping[tuple[_Claim, ...], list[CostBound]], now: float) -> None:
    """Tell the slices of the requests that have asked; the lock is held."""
    for claims, bounds in asks.items():
        total, subtotal = max(map(_get_total, bounds)), max(map(_get_subtotal, bounds))
        for claim in claims:
            claim.slice.note(len(bounds), total if claim.is_total else subtotal, claim.limit, now)


def _sum_by_slice(requests: Iterable[LeasedRequest]) -> Mapping[Slice, Decimal]:
    sums: defaultdict[Slice, Decimal] = defaultdict(Decimal)
    for claims, bounds in _group_bounds(requests).items():
        total, subtotal = sum(map(_get_total, bounds), _ZERO), sum(map(_get_subtotal, bounds), _ZERO)
        for claim in claims:
            sums[claim.slice] += total if claim.is_total else subtotal
    return sums
