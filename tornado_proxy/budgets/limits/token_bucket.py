"""Token buckets in integers: exact in every process that shares them.  Pure.

The debt of a bucket grows by what requests take and drains at the limit per minute, so that a whole minute's worth can
be taken at once.  A request takes what it can use at most and gives the rest back when it has ended.  Then the debt is
what it would be if the rest had never been taken: units that have drained meanwhile, with or without the rest, cannot
be given back.  So the bucket keeps, for the requests that may give back, the lowest debt since each of them.

    debt of a claim's rest r at time t:   min(r, the lowest debt since the claim)      (Skorokhod reflection)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

#: Microseconds of a minute.  A unit is that much debt, and a limit drains by its own number each microsecond.
UNIT_DEBT = 60_000_000

#: Lowest debts that are kept.  Beyond, the oldest two become the lower one, so that old requests give back less.
_MAX_LOWS = 64


@dataclass(slots=True)
class TokenBucket:
    """The bucket of one limit.

    Attributes:
        debt: Units taken that have not drained.
        at_us: When it was drained last, in microseconds since 1970.
        last: The number of the last claim.
        lows: Pairs (number, debt), both growing: the lowest debt since the claims up to that number.
    """

    debt: int = 0
    at_us: int = 0
    last: int = 0
    lows: list[tuple[int, int]] = field(default_factory=list)

    def drain(self, limit: int, now_us: int) -> None:
        """Drain up to `now_us`; nothing if the clock was set back."""
        self.debt = max(0, self.debt - limit * max(0, now_us - self.at_us))
        self.at_us = now_us

    def count_free(self, limit: int) -> int:
        """Return the units that can be taken now."""
        return max(0, limit - -(-self.debt // UNIT_DEBT))

    def wait_us(self, limit: int, units: int) -> int:
        """Return the microseconds until `units`, at most `limit`, can be taken; 0 if they can be taken now."""
        excess = self.debt + (units - limit) * UNIT_DEBT
        return -(-excess // limit) if excess > 0 else 0

    def take(self, units: int) -> int:
        """Take `units` and return the number of the claim.  drain() comes first."""
        while self.lows and self.lows[-1][1] >= self.debt:
            self.lows.pop()
        if self.last:
            self.lows.append((self.last, self.debt))
        if len(self.lows) > _MAX_LOWS:
            (_, lowest), (number, _) = self.lows[:2]
            self.lows[:2] = [(number, lowest)]
        self.debt += units * UNIT_DEBT
        self.last += 1
        return self.last

    def give_back(self, number: int, units: int) -> None:
        """Give back `units` of a claim.  drain() comes first."""
        since = [low for last, low in self.lows if last >= number]
        given = min([units * UNIT_DEBT, self.debt, *since])
        self.debt -= given
        lowest = self.debt
        for index in reversed(range(len(self.lows))):
            last, low = self.lows[index]
            lowest = min(lowest, low - given if last >= number else low)
            self.lows[index] = (last, lowest)

    def encode(self) -> str:
        """Return the text form, which a table holds."""
        return json.dumps([self.debt, self.at_us, self.last, self.lows], separators=(",", ":"))


def decode_bucket(text: str) -> TokenBucket:
    """Return the bucket of its text form."""
    debt, at_us, last, lows = json.loads(text)
    return TokenBucket(debt, at_us, last, [(number, low) for number, low in lows])
