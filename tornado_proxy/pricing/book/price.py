"""The prices of a model as values: price cards, their conditions, and the modifiers that multiply prices."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter

#: The number of counted things that one price of a unit is for (schemas/prices.schema.json says what each counts).
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
    """Conditions that must all be met: terms with their accepted values, and `over` < input tokens <= `up_to`."""

    # A tuple of pairs instead of a dict: the cache of price hashes needs hashable conditions.
    accepted: tuple[tuple[str, frozenset[str]], ...] = ()
    # Providers publish the limits in this form: "up to 272K tokens", "over 272K tokens".
    over: int | None = None
    up_to: int | None = None

    def match(self, terms: Terms, context_tokens: int) -> bool:
        """Return True if a request on `terms` with `context_tokens` input tokens meets all conditions."""
        if self.over is not None and context_tokens <= self.over:
            return False
        if self.up_to is not None and context_tokens > self.up_to:
            return False
        for name, values in self.accepted:  # noqa: SIM110  # twice as fast as all(), and runs dozens of times a request
            if getattr(terms, name, None) not in values:
                return False
        return True

    def overlap(self, other: Conditions) -> bool:
        """Return True if some request can meet both sets of conditions."""
        lows = [limit for limit in (self.over, other.over) if limit is not None]
        highs = [limit for limit in (self.up_to, other.up_to) if limit is not None]
        if lows and highs and min(highs) <= max(lows):
            return False
        # A term that only one side names is no difference: the other side accepts any value of it.
        theirs = dict(other.accepted)
        return all(name not in theirs or values & theirs[name] for name, values in self.accepted)


@dataclass(frozen=True, slots=True)
class PriceCard:
    """Prices in USD for one `unit` each.

    `minimum` is the least quantity that each use is charged for, in seconds, tokens and so on; None if there is none.
    The other rules hold for the time of containers: it is rounded up to a multiple of `step`, a container that was not
    used for `idle` seconds begins another life, and `free_per_month` of an account's time is free.
    The card is valid from `effective_from` (inclusive) to `effective_until` (exclusive), both aware UTC.  `source` and
    `checked` say where and when a person read the prices.
    """

    prices: Mapping[Meter, Decimal]
    unit: str
    conditions: Conditions
    source: str
    checked: str
    effective_from: datetime | None = None
    effective_until: datetime | None = None
    minimum: Decimal | None = None
    step: Decimal | None = None
    idle: Decimal | None = None
    free_per_month: Decimal | None = None

    @property
    def rules(self) -> str:
        """The rules of the quantity as text, "" if there are none; price hashes depend on it."""
        names = ("minimum", "step", "idle", "free_per_month")
        return "".join(f"; {name} {value}" for name in names if (value := getattr(self, name)) is not None)

    def covers(self, at: datetime) -> bool:
        """Return True if the card is valid at `at` (aware UTC)."""
        if self.effective_from is not None and at < self.effective_from:
            return False
        # The end is exclusive, so that the next card can begin on the same day without a gap or an overlap.
        return self.effective_until is None or at < self.effective_until

    def overlaps(self, other: PriceCard) -> bool:
        """Return True if some request at some time matches both cards."""
        if _ends_before(self, other) or _ends_before(other, self):
            return False
        return self.conditions.overlap(other.conditions)


def _ends_before(first: PriceCard, second: PriceCard) -> bool:
    ends, starts = first.effective_until, second.effective_from
    return ends is not None and starts is not None and ends <= starts


@dataclass(frozen=True, slots=True)
class Modifier:
    """A factor on the prices of some units, for requests that meet `conditions`."""

    name: str
    conditions: Conditions
    factor: Decimal
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of one meter on some terms: `unit_price` USD for each `divisor` counted things.

    `terms` are the pairs that differ from the default; `price_hash` identifies the price entry.  `over` is the input
    length above which the price holds, None if it also holds for short inputs.  `minimum` is the least quantity that is
    charged.
    """

    unit: str
    unit_price: Decimal
    divisor: Decimal
    price_hash: str
    terms: tuple[tuple[str, str], ...]
    over: int | None = None
    minimum: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """The most tokens of one prompt of a model and of its output; of an image model, the output tokens of one image."""

    context_tokens: int
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """All prices of one model.  The first `own_cards` of `cards` are its own; shared cards follow.

    `by_meter` is derived from the cards.  `limits` and `dates` are the input lengths and times at which a price can
    change, sorted.  `token_limits` is None if the price file states none.  `quotes` caches quotes of meters by terms
    and interval (calculator.py).
    """

    provider: str
    name: str
    status: str
    endpoints: frozenset[str]
    roles: frozenset[str]
    cards: tuple[PriceCard, ...]
    modifiers: tuple[Modifier, ...]
    by_meter: Mapping[Meter, tuple[PriceCard, ...]] = field(default_factory=dict)
    own_cards: int = 0
    limits: tuple[int, ...] = ()
    dates: tuple[datetime, ...] = ()
    token_limits: TokenLimits | None = None
    quotes: dict[object, dict[Meter, Quote]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, meter: Meter, terms: Terms, context_tokens: int, at: datetime) -> list[PriceCard]:
        """Return the cards that price `meter` on `terms` at `at`; exactly one if the price files are complete."""
        return [
            card
            for card in self.by_meter.get(meter, ())
            if card.covers(at) and card.conditions.match(terms, context_tokens)
        ]

    def list_own_cards(self) -> Sequence[PriceCard]:
        """Return the cards of this model alone; none if the provider has retired it."""
        return () if self.status == "retired" else self.cards[: self.own_cards]

    def names(self, term: str, terms: Terms) -> bool:
        """Return True if a card or modifier for requests on `terms` depends on `term`."""
        conditions = (*(card.conditions for card in self.cards), *(modifier.conditions for modifier in self.modifiers))
        return any(
            any(name == term and getattr(terms, term) in values for name, values in condition.accepted)
            and condition.match(terms, condition.up_to or 0)
            for condition in conditions
        )

    def depends_on_length(self) -> bool:
        """Return True if a price of this model depends on the input's length."""
        return any(card.conditions.over is not None or card.conditions.up_to is not None for card in self.cards)

    def factor(self, unit: str, terms: Terms, context_tokens: int) -> Decimal:
        """Return the product of the modifiers that apply to prices in `unit` on `terms`; 1 if none applies."""
        modifiers = self.find_modifiers(unit, terms, context_tokens)
        return math.prod([modifier.factor for modifier in modifiers], start=Decimal(1))

    def find_modifiers(self, unit: str, terms: Terms, context_tokens: int) -> tuple[Modifier, ...]:
        """Return the modifiers that apply to prices in `unit` on `terms`."""
        return tuple(
            modifier
            for modifier in self.modifiers
            if unit in modifier.units and modifier.conditions.match(terms, context_tokens)
        )


def fingerprint(model: str, meter: Meter, unit_price: Decimal, card: PriceCard) -> str:
    """Return a short hash of everything that determined a line item's price.

    Ledger records store it: if the same line hashes differently later, the price entry has changed since.
    """
    # A card without rules keeps the hash that records of earlier versions have.
    source = card.source + card.rules
    return _digest(model, meter, f"{unit_price:f}", (card.unit, card.conditions, card.effective_from, source))


# Requests repeat a few prices; the cache saves a SHA-256 and a repr for each line item.
@lru_cache(maxsize=10_000)
def _digest(model: str, meter: Meter, unit_price: str, card: tuple[str, Conditions, datetime | None, str]) -> str:
    unit, conditions, effective_from, source = card
    # Sorted: the iteration order of a set of strings differs between processes, and the hash must not.
    accepted = sorted((name, sorted(values)) for name, values in conditions.accepted)
    entry = (model, meter.value, unit_price, unit, accepted, conditions.over, conditions.up_to, effective_from, source)
    # The hashes are stored in ledgers: any change of this tuple or its repr marks every past record as re-priced.
    return hashlib.sha256(repr(entry).encode()).hexdigest()[:12]
