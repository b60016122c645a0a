"""A slice of one counter, and how much of the remainder it leases.

Amounts are whole numbers of 1e-12 USD: decimal arithmetic took a tenth of the time of a reservation.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from tornado_proxy.budgets.counting.counters import CounterKey
from tornado_proxy.domain.cost import AMOUNT_DECIMALS

#: The part of a counter's rest that a process leases at most: a tenth.
_SHARE = 10

#: The most that a process leases: this many times the largest bound, or 1 USD if that is more; with many
#: requests, this many times those between two syncs.
_MIN_BOUNDS = 256
_SPARE = 4
_MAX_AMOUNT = 10**AMOUNT_DECIMALS

#: Requests of a counter within _IDLE_S that make a lease worthwhile.
_MIN_ASKS = 2

#: Seconds without a request after which the idle part is given back; the second while the counter has much left, so
#: that requests after a pause find it.
_IDLE_S, _FAR_IDLE_S = 2.0, 30.0

#: Seconds in which a counter is not leased again after another process has asked for the idle part.
_RECALLED_S = 5.0

#: Seconds until the next attempt to lease after one that got nothing: near the limit, requests reserve one by one.
_DENIED_S = 1.0


@dataclass(slots=True, weakref_slot=True, eq=False)
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
    """

    key: CounterKey
    granted: int = 0
    idle: int = 0
    limit: Decimal = Decimal(0)
    asked: Decimal | None = None
    bound: int = 0
    asked_bound: int = 0
    asks: int = 0
    new_asks: int = 0
    need: int = 0
    asked_at: float = float("-inf")
    recalled_at: float = float("-inf")
    denied_at: float = float("-inf")
    is_near: bool = False
    has_changed: bool = False

    @property
    def used(self) -> int:
        """The bounds of requests under way."""
        return self.granted - self.idle

    def note(self, asks: int, bound: int, limit: Decimal, at: float) -> None:
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

    def is_unused(self, now: float) -> bool:
        """Return True if it is empty and no request has asked for it in the last seconds."""
        is_empty = not (self.granted or self.idle or self.has_changed)
        return is_empty and now - self.asked_at >= _IDLE_S

    def is_leasable(self, limit: Decimal, now: float) -> bool:
        """Return True if a sync may lease more of it, or has to give back what exceeds a lower limit."""
        return (self.asks >= _MIN_ASKS and now - self.denied_at >= _DENIED_S) or limit < self.limit

    def find_lease(self, left: int, now: float) -> int:
        """Return the amount to be idle, of `left` that the counter has left."""
        share = left // _SHARE
        self.need, self.new_asks = max(self.new_asks, self.need // 2), 0
        wanted = max(_MAX_AMOUNT, max(_MIN_BOUNDS, _SPARE * self.need) * self.bound)
        self.is_near = share < wanted
        return min(share, wanted) if self.is_wanted(now) and share >= self.bound else 0


def to_units_up(usd: Decimal) -> int:
    """Return the least amount that is not below `usd`; exact for a bound."""
    return int(usd.scaleb(AMOUNT_DECIMALS).to_integral_value(ROUND_CEILING))


def to_units_down(usd: Decimal) -> int:
    """Return the largest amount that is not above `usd`."""
    return int(usd.scaleb(AMOUNT_DECIMALS).to_integral_value(ROUND_FLOOR))


def to_usd(amount: int) -> Decimal:
    """Return an amount in USD."""
    return Decimal(amount).scaleb(-AMOUNT_DECIMALS)
