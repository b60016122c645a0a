"""The prices of a model as values: rate cards, the terms they hold on, and what multiplies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter

#: How many of what it counts one price of a unit is for (schemas/prices.schema.json says what each counts).
UNITS: Mapping[str, Decimal] = {
    "per_million_tokens": Decimal(1_000_000),
    "per_million_characters": Decimal(1_000_000),
    "per_minute": Decimal(60),
    "per_hour": Decimal(3600),
    "per_image": Decimal(1),
    "per_thousand_calls": Decimal(1000),
    "per_session": Decimal(1),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """Terms that must all hold: each named term is one of its words, and the input lies in `over` < n <= `up_to`."""

    words: tuple[tuple[str, frozenset[str]], ...] = ()
    over: int | None = None
    up_to: int | None = None

    def hold(self, terms: Terms, context_tokens: int) -> bool:
        """Whether they hold on `terms` for a request of `context_tokens` input tokens."""
        if self.over is not None and context_tokens <= self.over:
            return False
        if self.up_to is not None and context_tokens > self.up_to:
            return False
        for name, accepted in self.words:  # noqa: SIM110  # twice as fast as all(), and run dozens of times a request
            if getattr(terms, name, None) not in accepted:
                return False
        return True

    def can_meet(self, other: Conditions) -> bool:
        """Whether some request could meet both."""
        lows = [limit for limit in (self.over, other.over) if limit is not None]
        highs = [limit for limit in (self.up_to, other.up_to) if limit is not None]
        if lows and highs and min(highs) <= max(lows):
            return False
        theirs = dict(other.words)
        return all(name not in theirs or accepted & theirs[name] for name, accepted in self.words)


@dataclass(frozen=True, slots=True)
class RateCard:
    """Prices in USD for one `unit` each, on some terms, from `effective_from` until before `effective_until`."""

    prices: Mapping[Meter, Decimal]
    unit: str
    conditions: Conditions
    source: str
    checked: str
    effective_from: datetime | None = None
    effective_until: datetime | None = None

    def covers(self, at: datetime) -> bool:
        """Whether the card holds at `at` (aware UTC)."""
        if self.effective_from is not None and at < self.effective_from:
            return False
        return self.effective_until is None or at < self.effective_until

    def overlaps(self, other: RateCard) -> bool:
        """Whether some request at some time could take both cards."""
        if _ends_before(self, other) or _ends_before(other, self):
            return False
        return self.conditions.can_meet(other.conditions)


def _ends_before(first: RateCard, second: RateCard) -> bool:
    ends, starts = first.effective_until, second.effective_from
    return ends is not None and starts is not None and ends <= starts


@dataclass(frozen=True, slots=True)
class Modifier:
    """A factor on the prices of some units, on some terms."""

    name: str
    conditions: Conditions
    factor: Decimal
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quote:
    """What one of a meter costs on some terms: USD for each `divisor` of what is counted, and why.

    `terms` are those that are not the default.
    """

    unit: str
    unit_price: Decimal
    divisor: Decimal
    price_hash: str
    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """All prices of one model.  `cards` are its own, `own_cards` in number, and then those it shares.

    `by_meter` is made from them.  `quotes` remembers what calculator.py has found, where it holds for all requests on
    the same terms.
    """

    provider: str
    name: str
    status: str
    endpoints: frozenset[str]
    roles: frozenset[str]
    cards: tuple[RateCard, ...]
    modifiers: tuple[Modifier, ...]
    by_meter: Mapping[Meter, tuple[RateCard, ...]] = field(default_factory=dict)
    own_cards: int = 0
    quotes: dict[object, Quote] = field(default_factory=dict, compare=False, repr=False)

    def find(self, meter: Meter, terms: Terms, context_tokens: int, at: datetime) -> list[RateCard]:
        """The cards that price `meter` on `terms`; one where all is well."""
        return [
            card
            for card in self.by_meter.get(meter, ())
            if card.covers(at) and card.conditions.hold(terms, context_tokens)
        ]

    def is_steady(self, meter: Meter) -> bool:
        """Whether the price of `meter` depends on nothing but the terms: not on the time, nor on the input's length."""
        cards = self.by_meter.get(meter, ())
        conditions = [*(card.conditions for card in cards), *(modifier.conditions for modifier in self.modifiers)]
        return all(one.over is None and one.up_to is None for one in conditions) and all(
            card.effective_from is None and card.effective_until is None for card in cards
        )

    def factor(self, unit: str, terms: Terms, context_tokens: int) -> Decimal:
        """What multiplies a price in `unit` on `terms`."""
        factor = Decimal(1)
        for modifier in self.modifiers:
            if unit in modifier.units and modifier.conditions.hold(terms, context_tokens):
                factor *= modifier.factor
        return factor


def fingerprint(model: str, meter: Meter, unit_price: Decimal, card: RateCard) -> str:
    """A short hash of all that decided a line item's price, so that a later change of the price shows."""
    return _digest(model, meter, f"{unit_price:f}", (card.unit, card.conditions, card.effective_from, card.source))


@lru_cache(maxsize=10_000)  # the same few prices are asked for with every request
def _digest(model: str, meter: Meter, unit_price: str, card: tuple[str, Conditions, datetime | None, str]) -> str:
    unit, conditions, effective_from, source = card
    # Sorted: the order of a set's words differs from process to process, and the hash must not.
    words = sorted((name, sorted(accepted)) for name, accepted in conditions.words)
    decided = (model, meter.value, unit_price, unit, words, conditions.over, conditions.up_to, effective_from, source)
    return hashlib.sha256(repr(decided).encode()).hexdigest()[:12]
