"""Prices again what was priced before: the quantities of a record's line items, on the terms kept with them.

    line item ──> entry of today's registry ── same hash ──> the amount stays to the last digit
                        │ another price
                        └──> quantity x today's unit price, with the surcharge rate of the record

The quantities are what the provider's usage was read as; nothing is read, counted or inferred again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import SURCHARGE, Cost, LineItem, bill, round_amount
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, Modifier, RateCard, fingerprint
from tornado_proxy.pricing.book.price_book import PriceBook

_METERS = frozenset(meter.value for meter in Meter)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one unit price comes from: a card of a model, and the modifiers that multiply it."""

    model: ModelPrice
    meter: Meter
    card: RateCard
    modifiers: tuple[Modifier, ...]
    unit_price: Decimal

    @property
    def price_hash(self) -> str:
        """What a line item keeps of the entry."""
        return fingerprint(self.model.name, self.meter, self.unit_price, self.card)


@dataclass(frozen=True, slots=True)
class Lookup:
    """An entry of the registry, or why there is none."""

    entry: Entry | None
    fault: str = ""


def look_up(book: PriceBook, provider: str, item: LineItem, at: datetime) -> Lookup:
    """The entry that `book` prices a line item with, for a request that began at `at`."""
    model = book.resolve(provider, item.model) if item.model is not None else None
    if model is None:
        return Lookup(None, f"{item.model or 'a model without a name'} has no prices")
    if item.type not in _METERS:
        return Lookup(None, f"{item.type} is no meter of this version")
    meter = Meter(item.type)
    terms = DEFAULT_TERMS.override(Terms.from_pairs(item.terms))
    cards = model.find(meter, terms, item.context_tokens, at)
    if len(cards) != 1:
        words = ", ".join(f"{name} {word}" for name, word in item.terms) or "the standard terms"
        how_many = "no price" if not cards else f"{len(cards)} prices"
        return Lookup(None, f"{item.type} of {model.name} has {how_many} on {words}")
    (card,) = cards
    modifiers = tuple(
        one for one in model.modifiers if card.unit in one.units and one.conditions.hold(terms, item.context_tokens)
    )
    unit_price = card.prices[meter] * model.factor(card.unit, terms, item.context_tokens)
    return Lookup(Entry(model, meter, card, modifiers, unit_price))


def rerate(book: PriceBook, provider: str, items: Sequence[LineItem], at: datetime, *, surcharge_rate: Decimal) -> Cost:
    """What `items` cost at today's prices.  The record's own surcharge rate holds; `surcharge_rate` where it has none.

    A line whose price has not changed keeps its amount: a line of a batch is the sum of amounts that were rounded
    request by request.
    """
    rate = next((item.unit_price for item in items if item.type == SURCHARGE), None)
    faults: list[str] = []
    priced = [_priced(book, provider, item, at, faults) for item in items if item.type != SURCHARGE]
    return bill(priced, surcharge_rate if rate is None else rate, faults)


def _priced(book: PriceBook, provider: str, item: LineItem, at: datetime, faults: list[str]) -> LineItem:
    found = look_up(book, provider, item, at)
    entry = found.entry
    if entry is None:
        faults.append(found.fault)
        return replace(item, unit_price=None, amount=None, price_hash=None)
    same = item.amount is not None and (item.unit, item.unit_price) == (entry.card.unit, entry.unit_price)
    amount = item.amount if same else round_amount(item.quantity * entry.unit_price / UNITS[entry.card.unit])
    return replace(item, unit=entry.card.unit, unit_price=entry.unit_price, amount=amount, price_hash=entry.price_hash)
