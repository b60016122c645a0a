"""The units of limits that this process has leased, in memory: requests take from them without a transaction.

    idle       units that requests can take for _VALID_S seconds
    open       streams under way
    returned   units that requests have taken and not used, by the number of the claim that leased them

Leased units are taken from the bucket, whose debt drains meanwhile.  So a limit can be exceeded by what drains between
the lease of a unit and its use, whatever the number of processes and the size of their leases: with 0.6 seconds by 1 %
of what a minute admits.  A sync gives idle units back, as if they had never been taken, and leases anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tornado_proxy.budgets.limits.rates import BucketKey, LockedBuckets
from tornado_proxy.domain.budgets.rate_limits import RateClaim, RateUnit

#: Seconds for which leased units can be taken.
_VALID_S = 0.6

#: The part of a limit's free units that a process leases at most: a tenth.
_SHARE = 10

#: A lease has this many times the units that requests have asked for since the last sync.
_SPARE = 4

#: Requests within _IDLE_S that make a lease worthwhile; seconds after which a slice that is not asked for is dropped.
_MIN_ASKS = 2
_IDLE_S = 2.0

#: Seconds in which units are not leased again after another process has asked for them.
_RECALLED_S = 5.0

#: Seconds until the next attempt to lease after one that got nothing: near the limit, requests take units one by one.
_DENIED_S = 1.0


@dataclass(slots=True, eq=False)
class RateSlice:
    """The units of one limit that this process has leased.

    Attributes:
        number: The number of the claim that leased the idle units.
        under_way: Requests that have taken units.
        asked: Units that were asked for since the last sync, and `largest` the most of one request; `need` are those
            of the interval before it.
        asks: Requests since `asked_at` was long ago.
        is_tight: True if nothing could be leased; then units that are given back go to the bucket at once.
        has_changed: True if the next sync has something to write or to lease.
    """

    key: BucketKey
    limit: int
    unit: RateUnit
    idle: int = 0
    number: int = 0
    valid_until: float = float("-inf")
    open: int = 0
    under_way: int = 0
    returned: dict[int, int] = field(default_factory=dict)
    asked: int = 0
    largest: int = 0
    need: int = 0
    asks: int = 0
    asked_at: float = float("-inf")
    recalled_at: float = float("-inf")
    denied_at: float = float("-inf")
    is_tight: bool = False
    has_changed: bool = False

    @property
    def is_streams(self) -> bool:
        """True if streams are limited, which do not drain."""
        return self.unit is RateUnit.STREAMS

    def ask(self, claim: RateClaim, now: float) -> bool:
        """Note a request; return False if the slice has too little for it."""
        self.asks = self.asks + 1 if now - self.asked_at < _IDLE_S else 1
        self.asked_at = now
        units = claim.units
        self.asked += units
        if units > self.largest:  # noqa: PLR1730  # max() takes longer
            self.largest = units
        self.has_changed = True
        if claim.limit != self.limit:
            # What was leased for another limit is given back first.
            self.limit, self.valid_until = claim.limit, float("-inf")
        return self.idle >= units and now < self.valid_until

    def is_leasable(self, now: float) -> bool:
        """Return True if a sync may lease more of it."""
        return self.asks >= _MIN_ASKS and now - self.denied_at >= _DENIED_S

    def find_lease(self, free: int, now: float) -> int:
        """Return the units to be idle, of `free` ones of the limit."""
        self.need, self.asked = max(self.asked, self.need // 2), 0
        is_wanted = self.asks >= _MIN_ASKS and now - self.asked_at < _IDLE_S and now - self.recalled_at >= _RECALLED_S
        lease = min(free // _SHARE, _SPARE * self.need)
        self.is_tight = not is_wanted or lease < self.largest
        if self.is_tight:
            self.denied_at = now
            self.largest = 0
            return 0
        return lease


@dataclass(frozen=True, slots=True)
class RateLease:
    """A lease that a transaction makes for a limit: `kept` of its `units` can be taken already; `open` are streams."""

    limit: int
    units: int
    kept: int
    open: int


@dataclass(slots=True)
class RateSlices:
    """The slices of this process, and its requests that have taken from them."""

    slices: dict[BucketKey, RateSlice] = field(default_factory=dict)
    requests: dict[str, list[tuple[RateSlice, int, int]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: True if requests wait for a sync: one has found too little in a slice that is in use, or has given back units of
    #: a limit that has few left.
    is_short: bool = False

    def take(self, request_id: str, claims: tuple[RateClaim, ...]) -> bool:
        """Take the claims of a request; return False if a slice has too little: then the database decides."""
        now = time.monotonic()
        is_enough = True
        with self.lock:
            asked = []
            for claim in claims:
                # As find_bucket_key(), a call less for each limit.
                key = (claim.project_id, claim.subject, claim.unit)
                one = self.slices.get(key)
                if one is None:
                    one = self.slices[key] = RateSlice(key, claim.limit, claim.unit)
                if not one.ask(claim, now):
                    is_enough = False
                    self.is_short = self.is_short or one.is_leasable(now)
                asked.append((one, claim.units, one.number))
            if is_enough:
                for one, units, _ in asked:
                    one.idle -= units
                    one.under_way += 1
                    if one.unit is RateUnit.STREAMS:
                        one.open += units
                self.requests[request_id] = asked
        return is_enough

    def end(self, request_id: str, used: Mapping[RateUnit, int]) -> bool:
        """Give back what a request has taken and not used; return False if it has taken nothing here."""
        with self.lock:
            taken = self.requests.pop(request_id, None)
            for one, units, number in taken or ():
                rest = units - used.get(one.unit, units)
                one.under_way -= 1
                one.has_changed = True
                if rest <= 0:
                    continue
                if one.unit is RateUnit.STREAMS:
                    one.open -= rest
                else:
                    one.returned[number] = one.returned.get(number, 0) + rest
                self.is_short = self.is_short or one.is_tight
        return taken is not None

    def list_due(self, now: float) -> list[BucketKey]:
        """Return the limits whose units are to be leased or given back, in the order of locks."""
        with self.lock:
            due = []
            for key, one in list(self.slices.items()):
                if one.has_changed or one.idle or one.returned:
                    due.append(key)
                elif not one.under_way and now - one.asked_at >= _IDLE_S:
                    del self.slices[key]
            self.is_short = False
        return sorted(due)

    def settle(self, key: BucketKey, buckets: LockedBuckets, held: int, now: float) -> RateLease:
        """Give back to a bucket, in a transaction, and lease from it; the units are idle after grant().

        Args:
            key: The limit.
            buckets: The buckets that the transaction has locked.
            held: The streams of this process that the bucket has counted so far, idle ones too.
            now: Monotonic time.
        """
        project_id, subject, unit = key
        with self.lock:
            one = self.slices[key]
            limited = RateClaim(project_id, subject, RateUnit(unit), one.limit, 0)
            if one.is_streams:
                buckets.change_streams(limited, one.open - held)
            else:
                for number, units in ((one.number, one.idle), *one.returned.items()):
                    buckets.give_back(limited, number, units)
                # If the transaction fails they stay taken, so that no unit is given back twice.
                one.returned = {}
            lease = one.find_lease(buckets.count_free(limited), now)
            one.idle = kept = min(one.idle, lease)
            one.has_changed = False
            claim = RateClaim(project_id, subject, RateUnit(unit), one.limit, lease)
            # Those that are kept are of this claim from now on; forget() if the transaction fails.
            one.number = buckets.take(claim) if lease else 0
            return RateLease(one.limit, lease, kept, one.open)

    def grant(self, leases: Mapping[BucketKey, RateLease], leased_at: float) -> None:
        """Let requests take the units that a transaction has leased, which began at `leased_at` (monotonic)."""
        with self.lock:
            for key, lease in leases.items():
                one = self.slices[key]
                one.idle += lease.units - lease.kept
                if one.limit == lease.limit:  # else the next sync gives them back
                    one.valid_until = leased_at + _VALID_S

    def return_idle(self, keys: Iterable[BucketKey]) -> bool:
        """Give everything back with the next sync; return True if there may be anything.

        Requests of this or another process need it.
        """
        now = time.monotonic()
        with self.lock:
            own = [self.slices[key] for key in keys if key in self.slices]
            # A flood of refused requests must not cause a transaction for each to give nothing back.
            has_any = any(one.idle or one.returned or (one.is_streams and one.has_changed) for one in own)
            for one in own:
                one.recalled_at = now
                one.has_changed = True
            return has_any

    def forget(self) -> None:
        """Write all slices again: the database may have lost them, or may not have the claims that leased them.

        So units go back as those of the oldest claim, which gives back least.
        """
        with self.lock:
            for one in self.slices.values():
                one.has_changed = True
                one.number = 0
                one.returned = {0: sum(one.returned.values())} if one.returned else {}
            for taken in self.requests.values():
                taken[:] = [(one, units, 0) for one, units, _ in taken]
