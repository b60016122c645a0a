"""The bounds of requests that differ only in the length of their body and in time: a line over the length.

    USD ^             ________  the model's context is full
        |        ____/
        |  _____/    another price from this length on
        +──────────────────> bytes of the body

A line holds between two bends, and between two dates at which a price changes.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tornado_proxy.domain.cost import CostBound, round_up
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import INPUT_METERS, OUTPUT_METERS
from tornado_proxy.pricing.book.price import ModelPrice
from tornado_proxy.pricing.book.upper_bound import DearestPrices, OtherPrices, TokenCaps

_BEGINNING, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class PriceInterval(NamedTuple):
    """The numbers of the intervals of length and of time in which the prices of a model are constant."""

    length_index: int
    date_index: int

    @classmethod
    def find(cls, price: ModelPrice, prompt_tokens: int, at: datetime) -> PriceInterval:
        """Return the interval of a prompt at a time."""
        return cls(bisect_left(price.limits, prompt_tokens), bisect_right(price.dates, at))

    def find_times(self, price: ModelPrice) -> tuple[datetime, datetime]:
        """Return the first time of the interval, and that of the next one."""
        dates = price.dates
        return (
            dates[self.date_index - 1] if self.date_index else _BEGINNING,
            dates[self.date_index] if self.date_index < len(dates) else _END,
        )

    def find_bytes(self, price: ModelPrice, tokens: TokenCaps) -> tuple[int, int]:
        """Return the least and the most bytes of bodies whose prompt is in the interval; the least can be below 0."""
        limits, added = price.limits, tokens.added_to_prompt
        is_last = self.length_index == len(limits) or tokens.prompt_tokens <= limits[self.length_index]
        return (
            limits[self.length_index - 1] - added + 1 if self.length_index else 0,
            sys.maxsize if is_last else limits[self.length_index] - added,
        )


class BoundLine(msgspec.Struct, frozen=True):
    """The line of requests with the same spends and work.

    Attributes:
        usd_per_byte, usd: The most USD for tokens: bytes x usd_per_byte + usd.
        tokens_per_byte, tokens: The most tokens: bytes x tokens_per_byte + tokens.
        others: The prices of the meters that do not count tokens.
        since, until: It holds for requests that begin from `since` on and before `until`, aware UTC.
        min_bytes, max_bytes: It holds for bodies of at least `min_bytes` and at most `max_bytes`.
    """

    usd_per_byte: Decimal
    usd: Decimal
    tokens_per_byte: int
    tokens: int
    others: OtherPrices
    since: datetime
    until: datetime
    min_bytes: int
    max_bytes: int

    def __add__(self, other: BoundLine) -> BoundLine:
        """Return the line of requests with the spends of both, where both hold."""
        return BoundLine(
            self.usd_per_byte + other.usd_per_byte,
            self.usd + other.usd,
            self.tokens_per_byte + other.tokens_per_byte,
            self.tokens + other.tokens,
            self.others + other.others,
            max(self.since, other.since),
            min(self.until, other.until),
            max(self.min_bytes, other.min_bytes),
            min(self.max_bytes, other.max_bytes),
        )

    def bound(self, body_bytes: int, others: Decimal, surcharge_rate: Decimal) -> CostBound:
        """Return the bound of a request.

        Args:
            body_bytes: The length of its body.
            others: The most USD for meters that do not count tokens.
            surcharge_rate: A fraction of the provider's charge.
        """
        subtotal = body_bytes * self.usd_per_byte + self.usd + others
        total = subtotal + subtotal * surcharge_rate
        return CostBound(round_up(total), round_up(subtotal), body_bytes * self.tokens_per_byte + self.tokens)


def make_line(
    spend: Spend, price: ModelPrice, tokens: TokenCaps, prices: DearestPrices, interval: PriceInterval, body_bytes: int
) -> BoundLine:
    """Return the line of requests with one spend that holds for a body of `body_bytes`.

    Args:
        spend: The model and the meters that it can be charged for.
        price: The prices of the model.
        tokens: The most tokens of the requests.
        prices: The highest prices of the spend in the interval.
        interval: The interval of prices in which the request is.
        body_bytes: The length of its body.
    """
    min_bytes, max_bytes = interval.find_bytes(price, tokens)
    full_bytes = tokens.input_tokens - tokens.added_to_input
    if spend.meters.isdisjoint(INPUT_METERS):
        per_byte, input_tokens = 0, 0
    elif body_bytes < full_bytes:
        per_byte, input_tokens, max_bytes = 1, tokens.added_to_input, min(max_bytes, full_bytes)
    else:
        per_byte, input_tokens, min_bytes = 0, tokens.input_tokens, max(min_bytes, full_bytes)
    output_tokens = 0 if spend.meters.isdisjoint(OUTPUT_METERS) else tokens.output_tokens
    return BoundLine(
        per_byte * prices.input_token,
        input_tokens * prices.input_token + output_tokens * prices.output_token,
        per_byte,
        input_tokens + output_tokens,
        prices.others,
        *interval.find_times(price),
        min_bytes,
        max_bytes,
    )
