"""Bounds the cost of requests with the prices of one configuration.

upper_bound.py has the arithmetic, bound_line.py its result for all lengths of a body.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import reduce
from operator import add
from typing import NamedTuple

from msgspec.structs import replace

from tornado_proxy.domain.cost import NO_BOUND, ZERO, CostBound
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.pricing.book.bound_line import BoundLine, PriceInterval, make_line
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.upper_bound import (
    DearestPrices,
    WorkCaps,
    bound_others,
    find_dearest,
    find_token_caps,
)

#: Entries of each cache.  They need a limit, because their keys contain words of requests.
MAX_CACHED_PRICES = 4096

#: More than all roundings of the line items of a record, each to 1e-12 USD.
_ROUNDING = Decimal("1e-9")

#: Models that still serve requests.
_SERVING = ("active", "deprecated")

#: Lengths of shared bounds are multiples of 2 to the power of this, by the bits of the length: of 256 bytes, and of a
#: sixteenth to a thirty-second of lengths above 8 KiB.
_SHIFTS = tuple(max(8, bits - 5) for bits in range(65))


class SharedBound(NamedTuple):
    """A bound that requests share which begin from `since` on and before `until`, aware UTC."""

    bound: CostBound
    since: datetime
    until: datetime


class CostBounds:
    """The most that requests can cost, at the prices of one configuration."""

    def __init__(self, prices: PriceBook, caps: WorkCaps) -> None:
        self._prices = prices
        self._caps = caps
        self._dearest: dict[object, DearestPrices] = {}
        #: The lines of the last requests: most have the prices of the one before with the same spends and work.
        self._lines: dict[object, BoundLine] = {}

    def bound(self, tariff: Tariff, endpoint: str, facts: RequestFacts, at: datetime) -> CostBound | None:
        """Return the most that an admitted request can cost.

        None if the price files state no limits for a model that the request can spend on, or if it names none.

        Args:
            tariff: The prices of the provider.
            endpoint: The endpoint of the price list.
            facts: The facts of the request; their spends have been admitted.
            at: When the request began, aware UTC.
        """
        spends, body_bytes = facts.priced_spends, facts.body_bytes
        line = self._find_line(tariff, spends, facts.work, body_bytes, at)
        if line is None:
            return None
        others = bound_others(line.others, facts, self._caps) if line.others else ZERO
        bound = line.bound(body_bytes, others, tariff.surcharge_rate)
        return bound if facts.work.names_models else self._add_unnamed(bound, tariff, endpoint, facts, at)

    def share(self, tariff: Tariff, facts: RequestFacts, at: datetime) -> SharedBound | None:
        """Return a bound for requests like this one whose bodies are about as long: the length is rounded up.

        None if the bound depends on more than the spends, the work and the length of a request.
        """
        # A session has no body; its bound is not that of a short one.
        if facts.inferred or not facts.body_bytes or not facts.work.names_models:
            return None
        body_bytes = round_up_length(facts.body_bytes)
        line = self._find_line(tariff, facts.priced_spends, facts.work, body_bytes, at)
        if line is None:
            return None
        others = bound_others(line.others, replace(facts, body_bytes=body_bytes), self._caps) if line.others else ZERO
        return SharedBound(line.bound(body_bytes, others, tariff.surcharge_rate), line.since, line.until)

    def _find_line(
        self, tariff: Tariff, spends: tuple[Spend, ...], work: WorkLimits, body_bytes: int, at: datetime
    ) -> BoundLine | None:
        """Return the line of requests like this one; None if a model has no limits, or the request names none."""
        key = (tariff.provider, tariff.provider_region, spends, work)
        line = self._lines.get(key)
        if line is None or not line.since <= at < line.until or not line.min_bytes <= body_bytes <= line.max_bytes:
            line = self._make_line(tariff, spends, work, body_bytes, at)
            if line is None:
                return None
            if len(self._lines) >= MAX_CACHED_PRICES:
                self._lines.clear()
            self._lines[key] = line
        return line

    def _make_line(
        self, tariff: Tariff, spends: tuple[Spend, ...], work: WorkLimits, body_bytes: int, at: datetime
    ) -> BoundLine | None:
        """Return the line of these requests, which does not hold for all lengths and times."""
        lines: list[BoundLine] = []
        for spend in spends:
            price = self._prices.resolve(tariff.provider, spend.model)
            if price is None or price.token_limits is None:
                return None
            tokens = find_token_caps(spend, price.token_limits, work, self._caps)
            prompt_tokens = tokens.count_prompt_tokens(body_bytes)
            interval = PriceInterval.find(price, prompt_tokens, at)
            key = (tariff.provider, tariff.provider_region, spend, interval)
            dearest = self._dearest.get(key)
            if dearest is None:
                terms = self._prices.possible_terms(tariff.provider, spend.terms, tariff.provider_region)
                dearest = find_dearest(spend, price, terms, prompt_tokens, at)
                if len(self._dearest) < MAX_CACHED_PRICES:
                    self._dearest[key] = dearest
            lines.append(make_line(spend, price, tokens, dearest, interval, body_bytes))
        if not lines:
            return None
        line = reduce(add, lines)
        return replace(line, usd=line.usd + _ROUNDING)

    def _add_unnamed(
        self, bound: CostBound, tariff: Tariff, endpoint: str, facts: RequestFacts, at: datetime
    ) -> CostBound | None:
        """Add a model that the provider chooses: the dearest one that serves the endpoint."""
        spend, work = facts.spends[0], replace(facts.work, names_models=True)
        found = [
            self.bound(tariff, endpoint, replace(facts, spends=(replace(spend, model=price.name),), work=work), at)
            for price in self._prices.models(tariff.provider)
            if price.status in _SERVING and endpoint in price.endpoints
        ]
        known = [NO_BOUND, *filter(None, found)]
        if len(known) <= len(found):
            return None  # one without a bound
        return CostBound(
            bound.total + max(each.total for each in known),
            bound.subtotal + max(each.subtotal for each in known),
            bound.tokens + max(each.tokens for each in known),
        )


def round_up_length(body_bytes: int) -> int:
    """Return the length that bodies of a SharedBound have at most, this one among them."""
    shift = _SHIFTS[body_bytes.bit_length()]
    return (body_bytes >> shift) + 1 << shift
