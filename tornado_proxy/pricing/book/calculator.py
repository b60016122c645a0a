"""Usage to line items: one card for each meter, quantity x unit price, rounded half-even to 1e-12 USD.

What has no price, or two, becomes a line item without an amount and a fault in words: never zero in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from tornado_proxy.domain.cost import LineItem, round_amount
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, Quote, fingerprint

#: Quotes that a model remembers; an answer's own words are part of their keys, so there is no natural end.
_MOST_QUOTES = 1000


@dataclass(slots=True)
class Itemised:
    """Line items of one or more readings, and what could not be priced."""

    items: list[LineItem] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def itemise(reading: UsageItem, model: ModelPrice, terms: Terms, at: datetime, into: Itemised) -> None:
    """Add a line item for each quantity of `reading` above zero, at the prices of `model` on `terms`."""
    for quantity in reading.quantities:
        if quantity.amount == 0:
            continue
        all_terms = terms.override(quantity.terms)
        quoted = _quote(model, quantity.meter, all_terms, reading.context_tokens, at)
        if isinstance(quoted, Quote):
            into.items.append(_priced(quantity, model, quoted, reading.context_tokens))
        else:
            into.items.append(_unpriced(quantity, model, all_terms, reading.context_tokens))
            into.faults.append(_fault(quantity, model, all_terms, quoted))


def _quote(model: ModelPrice, meter: Meter, terms: Terms, context_tokens: int, at: datetime) -> Quote | int:
    """What `meter` costs; the number of prices that were found, where it is not one."""
    key = (meter, terms)
    known = model.quotes.get(key)
    if known is not None:
        return known
    cards = model.find(meter, terms, context_tokens, at)
    if len(cards) != 1:
        return len(cards)
    card = cards[0]
    unit_price = card.prices[meter] * model.factor(card.unit, terms, context_tokens)
    price_hash = fingerprint(model.name, meter, unit_price, card)
    quote = Quote(card.unit, unit_price, UNITS[card.unit], price_hash, terms.non_default_pairs())
    if len(model.quotes) < _MOST_QUOTES and model.is_steady(meter):
        model.quotes[key] = quote
    return quote


def _unpriced(quantity: Quantity, model: ModelPrice, terms: Terms, context_tokens: int) -> LineItem:
    item = without_price(quantity, model.name)
    return replace(item, terms=terms.non_default_pairs(), context_tokens=context_tokens)


def without_price(quantity: Quantity, model: str | None) -> LineItem:
    """A quantity that is shown, and not charged for want of a price."""
    return LineItem(quantity.meter.value, quantity.amount, "", None, None, model)


def _priced(quantity: Quantity, model: ModelPrice, quote: Quote, context_tokens: int) -> LineItem:
    return LineItem(
        type=quantity.meter.value,
        quantity=quantity.amount,
        unit=quote.unit,
        unit_price=quote.unit_price,
        amount=round_amount(quantity.amount * quote.unit_price / quote.divisor),
        model=model.name,
        price_hash=quote.price_hash,
        terms=quote.terms,
        context_tokens=context_tokens,
    )


def _fault(quantity: Quantity, model: ModelPrice, terms: Terms, found: int) -> str:
    words = ", ".join(f"{name} {value}" for name, value in terms.pairs())
    how_many = "has no price" if found == 0 else f"has {found} prices"
    return f"{quantity.amount} {quantity.meter} of {model.name} {how_many} on these terms: {words}"
