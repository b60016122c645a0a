"""Bounds the cost of requests with the prices of one configuration.  upper_bound.py has the arithmetic."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.cost import NO_BOUND, CostBound
from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.pricing.book.price import ModelPrice
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.upper_bound import (
    DearestPrices,
    SpendRates,
    TokenCaps,
    WorkCaps,
    bound_others,
    find_dearest,
    find_rates,
    find_token_caps,
)

#: Entries of each cache.  They need a limit, because their keys contain words of requests.
MAX_CACHED_PRICES = 4096

#: More than all roundings of the line items of a record, each to 1e-12 USD.
_ROUNDING = Decimal("1e-9")

_BEGINNING, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

#: Models that still serve requests.
_SERVING = ("active", "deprecated")


class _RateWindow(SpendRates, frozen=True):
    """The rates of the requests that begin from `since` up to `until`, and whose body has so many bytes."""

    since: datetime
    until: datetime
    min_bytes: int
    max_bytes: int


class _SpendFacts(msgspec.Struct):
    """The facts that requests with one spend and the same work share.

    `windows` has the rates of each interval of prices; `latest` is that of the last request.
    """

    price: ModelPrice
    tokens: TokenCaps
    windows: dict[tuple[int, int], _RateWindow]
    latest: _RateWindow | None = None

    def make_window(self, interval: tuple[int, int], rates: SpendRates) -> _RateWindow:
        """Return the window of an interval of prices, that of _find_interval()."""
        length, date = interval
        limits, dates, added = self.price.limits, self.price.dates, self.tokens.added_to_prompt
        is_last = length == len(limits) or self.tokens.prompt_tokens <= limits[length]
        return _RateWindow(
            rates.input_token,
            rates.output_usd,
            rates.added_tokens,
            rates.max_input_tokens,
            rates.output_tokens,
            rates.others,
            since=dates[date - 1] if date else _BEGINNING,
            until=dates[date] if date < len(dates) else _END,
            min_bytes=limits[length - 1] - added + 1 if length else 0,
            max_bytes=sys.maxsize if is_last else limits[length] - added,
        )


class CostBounds:
    """The most that requests can cost, at the prices of one configuration."""

    def __init__(self, prices: PriceBook, caps: WorkCaps) -> None:
        self._prices = prices
        self._caps = caps
        self._dearest: dict[object, DearestPrices] = {}
        self._spends: dict[object, _SpendFacts] = {}

    def bound(self, tariff: Tariff, endpoint: str, facts: RequestFacts, at: datetime) -> CostBound | None:
        """Return the most that an admitted request can cost.

        None if the price files state no limits for a model that the request can spend on, or if it names none.

        Args:
            tariff: The prices of the provider.
            endpoint: The endpoint of the price list.
            facts: The facts of the request; their spends have been admitted.
            at: When the request began, aware UTC.
        """
        spends = facts.spends if facts.terms.cache_ttl is None else facts.priced_spends
        if not spends:
            return None
        subtotal, tokens, body_bytes = _ROUNDING, 0, facts.body_bytes
        for spend in spends:
            key = (tariff.provider, tariff.provider_region, spend, facts.work)
            known = self._spends.get(key) or self._find_spend_facts(key, tariff, spend, facts.work)
            if known is None:
                return None
            window = known.latest
            if (
                window is None
                or not window.since <= at < window.until
                or not window.min_bytes <= body_bytes <= window.max_bytes
            ):
                window = self._find_window(known, tariff, spend, body_bytes, at)
            input_tokens = body_bytes + window.added_tokens
            if input_tokens > window.max_input_tokens:  # noqa: PLR1730  # min() takes longer
                input_tokens = window.max_input_tokens
            subtotal += input_tokens * window.input_token + window.output_usd
            if window.others:
                subtotal += bound_others(window, facts, self._caps)
            tokens += input_tokens + window.output_tokens
        rate = tariff.surcharge_rate
        bound = CostBound(subtotal + subtotal * rate if rate else subtotal, subtotal, tokens)
        return bound if facts.work.names_models else self._add_unnamed(bound, tariff, endpoint, facts, at)

    def _find_window(
        self, known: _SpendFacts, tariff: Tariff, spend: Spend, body_bytes: int, at: datetime
    ) -> _RateWindow:
        """Return the window of a request, and keep it for the next ones."""
        prompt_tokens = known.tokens.count_prompt_tokens(body_bytes)
        interval = _find_interval(known.price, prompt_tokens, at)
        window = known.windows.get(interval)
        if window is None:
            dearest = self._find_dearest(tariff, spend, known.price, prompt_tokens, at)
            window = known.make_window(interval, find_rates(spend, dearest, known.tokens))
            known.windows[interval] = window
        known.latest = window
        return window

    def _find_spend_facts(self, key: object, tariff: Tariff, spend: Spend, work: WorkLimits) -> _SpendFacts | None:
        price = self._prices.resolve(tariff.provider, spend.model)
        if price is None or price.token_limits is None:
            return None
        tokens = find_token_caps(spend, price.token_limits, work, self._caps)
        if len(self._spends) >= MAX_CACHED_PRICES:
            self._spends.clear()
        return self._spends.setdefault(key, _SpendFacts(price, tokens, {}))

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

    def _find_dearest(
        self, tariff: Tariff, spend: Spend, price: ModelPrice, prompt_tokens: int, at: datetime
    ) -> DearestPrices:
        key = (tariff.provider, tariff.provider_region, spend, _find_interval(price, prompt_tokens, at))
        cached = self._dearest.get(key)
        if cached is not None:
            return cached
        terms = self._prices.possible_terms(tariff.provider, spend.terms, tariff.provider_region)
        dearest = find_dearest(spend, price, terms, prompt_tokens, at)
        if len(self._dearest) < MAX_CACHED_PRICES:
            self._dearest[key] = dearest
        return dearest


def _find_interval(price: ModelPrice, prompt_tokens: int, at: datetime) -> tuple[int, int]:
    """Return the numbers of the intervals of length and of time in which the prices of a model are constant."""
    return bisect_left(price.limits, prompt_tokens), bisect_right(price.dates, at)
