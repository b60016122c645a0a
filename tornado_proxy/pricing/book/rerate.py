"""Rates line items of past records again, with the terms that they store.

    line item ──> entry of today's registry ── same unit price ──> the amount is kept to the last digit
                        │ another unit price
                        └──> quantity x today's unit price, with the discount and surcharge rates of the record

The quantities are those of the record: nothing is read from the provider, counted or inferred again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from tornado_proxy.domain.cost import DERIVED_ITEMS, BillRates, Cost, LineItem, round_amount
from tornado_proxy.domain.terms import DEFAULT_TERMS, Terms
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, Modifier, PriceCard, fingerprint
from tornado_proxy.pricing.book.price_book import PriceBook

_METERS = frozenset(meter.value for meter in Meter)


@dataclass(frozen=True, slots=True)
class Entry:
    """The origin of one unit price: a card of a model, and the modifiers that multiply its price."""

    model: ModelPrice
    meter: Meter
    card: PriceCard
    modifiers: tuple[Modifier, ...]
    unit_price: Decimal

    @property
    def price_hash(self) -> str:
        """The hash that line items of this entry store."""
        return fingerprint(self.model.name, self.meter, self.unit_price, self.card)


@dataclass(frozen=True, slots=True)
class Lookup:
    """An entry of the registry, or None with the reason in `fault`."""

    entry: Entry | None
    fault: str = ""


def find_entry(book: PriceBook, provider: str, item: LineItem, at: datetime) -> Lookup:
    """Return the entry with which `book` prices a line item of a request that began at `at`."""
    model = book.resolve(provider, item.model) if item.model is not None else None
    if model is None:
        return Lookup(None, f"{item.model or 'a model without a name'} has no prices")
    if item.type not in _METERS:
        return Lookup(None, f"{item.type} is no meter of this version")
    meter = Meter(item.type)
    # Line items store only the terms that differ from the default.
    terms = DEFAULT_TERMS.override(Terms.from_pairs(item.terms))
    cards = model.find(meter, terms, item.context_tokens, at)
    if len(cards) != 1:
        term_list = ", ".join(f"{name} {value}" for name, value in item.terms) or "the standard terms"
        prices = "no price" if not cards else f"{len(cards)} prices"
        return Lookup(None, f"{item.type} of {model.name} has {prices} on {term_list}")
    (card,) = cards
    modifiers = model.find_modifiers(card.unit, terms, item.context_tokens)
    unit_price = card.prices[meter] * model.factor(card.unit, terms, item.context_tokens)
    return Lookup(Entry(model, meter, card, modifiers, unit_price))


def rerate(book: PriceBook, provider: str, items: Sequence[LineItem], at: datetime, *, surcharge_rate: Decimal) -> Cost:
    """Return the cost of `items` at today's prices.

    The rates of discount and surcharge are the record's own; `surcharge_rate` is for a record without one.  A line
    whose unit price is the same keeps its amount: a line of a batch is a sum of amounts that were rounded request by
    request, so multiplying its quantity again would differ in the last digit.
    """
    rates = BillRates.of(items, surcharge_rate)
    faults: list[str] = []
    priced = [_rerate_item(book, provider, item, at, faults) for item in items if item.type not in DERIVED_ITEMS]
    return bill(priced, rates.surcharge, faults, discount_rate=rates.discount)


def _rerate_item(book: PriceBook, provider: str, item: LineItem, at: datetime, faults: list[str]) -> LineItem:
    found = find_entry(book, provider, item, at)
    entry = found.entry
    if entry is None:
        faults.append(found.fault)
        # No amount, as at the first rating: an unpriced quantity never counts as zero.
        return replace(item, unit_price=None, amount=None, price_hash=None)
    same = item.amount is not None and (item.unit, item.unit_price) == (entry.card.unit, entry.unit_price)
    amount = item.amount if same else round_amount(item.quantity * entry.unit_price / UNITS[entry.card.unit])
    return replace(item, unit=entry.card.unit, unit_price=entry.unit_price, amount=amount, price_hash=entry.price_hash)
