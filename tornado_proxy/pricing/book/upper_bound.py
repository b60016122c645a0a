"""The most that a request can cost, from the facts known before it is sent.

    tokens of input     the bytes of the body if all of it is text (byte-level encodings have no token shorter than a
                        byte), else the model's context; once more for each call of a tool that runs at the provider
    tokens of output    the request's limit, else the model's
    calls, seconds      the request's limit, else a cap of the configuration
    price               the dearest card that the request can reach: its tier, or any if it leaves the choice to the
                        provider; a longer prompt; input that is written to a cache

A bound must never be below the cost, so that a budget that reserves it holds.  It may be far above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from tornado_proxy.domain.request import RequestFacts, Spend, WorkLimits
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import INPUT_METERS, OUTPUT_METERS, Meter
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, PriceCard, TokenLimits

#: Tokens that a provider adds to a prompt of text: its own instructions for tools, and marks between messages.  The
#: largest published sum is 2,500 (Claude docs, "Tool use overview" and the pages of its tools).
HIDDEN_TOKENS = 4096

#: Bytes of one second of speech in the slowest encoding: 2 kbit/s.
_MIN_AUDIO_BYTES_PER_SECOND = 250

#: Seconds that a container can be charged for one response: providers end one that is idle for 20 minutes.
_CONTAINER_SECONDS = 3600

_CALL_METERS = frozenset({Meter.WEB_SEARCHES, Meter.WEB_FETCHES, Meter.FILE_SEARCHES})

#: Input of one kind can be charged by each of these meters.
_KINDS_OF_INPUT = {
    Meter.INPUT: (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE, Meter.CACHE_WRITE_5M),
    Meter.INPUT_AUDIO: (Meter.INPUT_AUDIO, Meter.CACHED_INPUT_AUDIO),
    Meter.INPUT_IMAGE: (Meter.INPUT_IMAGE, Meter.CACHED_INPUT_IMAGE),
}
_FREE = Decimal(0)

_NAMED_LIFETIMES = {"12h": Meter.CACHE_WRITE_12H, "1h": Meter.CACHE_WRITE_1H}


@dataclass(frozen=True, slots=True)
class WorkCaps:
    """Caps of what a request leaves open: calls of tools at the provider, and seconds of a session."""

    tool_calls: int
    session_s: int


#: The meters that do not count tokens, each with its price and the least quantity that is charged.
OtherPrices = tuple[tuple[Meter, Decimal, Decimal], ...]


@dataclass(frozen=True, slots=True)
class DearestPrices:
    """The highest prices that one spend can be charged, in USD for one token, second, call or image."""

    input_token: Decimal
    output_token: Decimal
    others: OtherPrices


def find_dearest(
    spend: Spend, price: ModelPrice, terms: tuple[Terms, ...], prompt_tokens: int, at: datetime
) -> DearestPrices:
    """Return the highest prices of `spend` at the prices of `at`.

    Args:
        spend: The model and the meters that it can be charged for, with the cache lifetime that the request names.
        price: The prices of the model.
        terms: The terms that the request can be served on, in the words of price cards.
        prompt_tokens: The tokens of the longest prompt.
        at: When the request began, aware UTC.
    """
    meters = _list_charged_meters(spend) & price.by_meter.keys()
    # Prices change at a few lengths, so one length of each interval up to the longest prompt is enough.
    lengths = (0, prompt_tokens, *(limit + 1 for limit in price.limits if limit < prompt_tokens))
    dearest = {meter: _find_dearest_price(price, meter, terms, lengths, at) for meter in meters}
    return DearestPrices(
        input_token=max((dearest[meter] for meter in meters & INPUT_METERS), default=_FREE),
        output_token=max((dearest[meter] for meter in meters & OUTPUT_METERS), default=_FREE),
        others=tuple(
            (meter, dearest[meter], max(card.minimum or _FREE for card in price.by_meter[meter]))
            for meter in sorted(meters - INPUT_METERS - OUTPUT_METERS)
        ),
    )


class TokenCaps(msgspec.Struct, frozen=True):
    """The most tokens that one spend can use in a request, as far as they do not depend on the length of its body.

    Attributes:
        prompt_tokens, input_tokens: The most tokens of one prompt, and of all.
        added_to_prompt, added_to_input: The tokens beside those of the body's text, of one prompt and of all.
        output_tokens: The most output tokens of all prompts.
    """

    prompt_tokens: int
    input_tokens: int
    added_to_prompt: int
    added_to_input: int
    output_tokens: int

    def count_prompt_tokens(self, body_bytes: int) -> int:
        """Return the most tokens of one prompt."""
        return min(self.prompt_tokens, body_bytes + self.added_to_prompt)


def find_token_caps(spend: Spend, limits: TokenLimits, work: WorkLimits, caps: WorkCaps) -> TokenCaps:
    """Return the most tokens that `spend` can use in a request of this work."""
    tool_calls = _count_tool_calls(work, caps)
    # Media and results of tools have tokens that the body does not show.
    is_open = not work.text_only or spend.role is not None or tool_calls > 0
    prompts = work.prompts * (1 + tool_calls)
    added = limits.context_tokens if is_open else HIDDEN_TOKENS if Meter.OUTPUT in spend.meters else 0
    output_tokens = _count_output_tokens(spend, limits, work) * (1 + tool_calls)
    return TokenCaps(limits.context_tokens, prompts * limits.context_tokens, added, prompts * added, output_tokens)


def bound_others(others: OtherPrices, facts: RequestFacts, caps: WorkCaps) -> Decimal:
    """Return the most USD that a request can cost for meters that do not count tokens."""
    return sum((max(minimum, _count_others(meter, facts, caps)) * price for meter, price, minimum in others), _FREE)


def _list_charged_meters(spend: Spend) -> frozenset[Meter]:
    meters = set(spend.meters)
    for kind, charged in _KINDS_OF_INPUT.items():
        if kind in spend.meters:
            meters.update(charged)
    if Meter.INPUT in spend.meters and spend.terms.cache_ttl in _NAMED_LIFETIMES:
        meters.add(_NAMED_LIFETIMES[spend.terms.cache_ttl])
    return frozenset(meters)


def _find_dearest_price(
    price: ModelPrice, meter: Meter, terms: tuple[Terms, ...], lengths: tuple[int, ...], at: datetime
) -> Decimal:
    prices = [
        _price_of_one(card, meter, price.factor(card.unit, some, length))
        for some in terms
        for length in lengths
        for card in price.find(meter, some, length, at)
    ]
    if prices:
        return max(prices)
    # The response will state the terms: the size of an image, the state of a session.
    factor = math.prod((max(Decimal(1), modifier.factor) for modifier in price.modifiers), start=Decimal(1))
    cards = [card for card in price.by_meter[meter] if card.covers(at)]
    return max((_price_of_one(card, meter, factor) for card in cards), default=_FREE)


def _price_of_one(card: PriceCard, meter: Meter, factor: Decimal) -> Decimal:
    return card.prices[meter] * factor / UNITS[card.unit]


def _count_tool_calls(work: WorkLimits, caps: WorkCaps) -> int:
    return caps.tool_calls if work.tool_calls is None else work.tool_calls


def _count_output_tokens(spend: Spend, limits: TokenLimits, work: WorkLimits) -> int:
    """Return the most output tokens of one turn of each prompt."""
    most = work.prompts * work.choices * limits.max_output_tokens
    # The request's limit holds for its own model: the models of tools do not know it.
    return most if work.output_tokens is None or spend.role is not None else min(most, work.output_tokens)


def _count_others(meter: Meter, facts: RequestFacts, caps: WorkCaps) -> Decimal:
    """Return the most of a meter that does not count tokens."""
    stated = max((quantity.amount for quantity in facts.inferred if quantity.meter is meter), default=None)
    if stated is not None:
        return stated
    prompts = facts.work.prompts
    if meter in _CALL_METERS:
        return Decimal(max(1, _count_tool_calls(facts.work, caps)) * prompts)
    if meter is Meter.CONTAINER_SECONDS:
        return Decimal(_CONTAINER_SECONDS * prompts)
    if meter in (Meter.IMAGES, Meter.CONTAINER_SESSIONS):
        return Decimal(facts.work.choices * prompts)
    if meter is Meter.INPUT_CHARACTERS:
        return Decimal(facts.body_bytes)
    # Seconds of an upload, or of a session, whose frames have no body.
    return Decimal(facts.body_bytes) / _MIN_AUDIO_BYTES_PER_SECOND if facts.body_bytes else Decimal(caps.session_s)
