"""Usage to line items: one card for each meter, quantity x unit price, rounded half-even to 1e-12 USD.

What has no price, or two, becomes a line item without an amount and a fault in words: never zero in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import LineItem, round_amount
from tornado_proxy.domain.usage import Quantity, Reading
from tornado_proxy.pricing.price import DEFAULT_TERMS, UNITS, ModelPrice, RateCard, fingerprint


@dataclass(slots=True)
class Itemised:
    """Line items of one or more readings, and what could not be priced."""

    items: list[LineItem] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def itemise(reading: Reading, model: ModelPrice, terms: Mapping[str, str], at: datetime, into: Itemised) -> None:
    """Add a line item for each quantity of `reading` above zero, at the prices of `model` on `terms`."""
    for quantity in reading.quantities:
        if quantity.amount == 0:
            continue
        all_terms = {**terms, **dict(quantity.when)}
        cards = model.find(quantity.meter, all_terms, reading.context_tokens, at)
        if len(cards) == 1:
            into.items.append(_priced(quantity, model, cards[0], all_terms, reading.context_tokens))
            continue
        into.items.append(_unpriced(quantity, model, all_terms, reading.context_tokens))
        into.faults.append(_fault(quantity, model, all_terms, len(cards)))


def _unpriced(quantity: Quantity, model: ModelPrice, terms: Mapping[str, str], context_tokens: int) -> LineItem:
    item = without_price(quantity, model.name)
    return replace(item, terms=_telling(terms), context_tokens=context_tokens)


def without_price(quantity: Quantity, model: str | None) -> LineItem:
    """A quantity that is shown, and not charged for want of a price."""
    return LineItem(quantity.meter.value, quantity.amount, "", None, None, model)


def _priced(
    quantity: Quantity, model: ModelPrice, card: RateCard, terms: Mapping[str, str], context_tokens: int
) -> LineItem:
    unit_price = card.prices[quantity.meter] * model.factor(card.unit, terms, context_tokens)
    return LineItem(
        type=quantity.meter.value,
        quantity=quantity.amount,
        unit=card.unit,
        unit_price=unit_price,
        amount=round_amount(Decimal(quantity.amount) * unit_price / UNITS[card.unit]),
        model=model.name,
        price_hash=fingerprint(model.name, quantity.meter, unit_price, card),
        terms=_telling(terms),
        context_tokens=context_tokens,
    )


def _telling(terms: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The terms that are not the default."""
    return tuple((name, word) for name, word in sorted(terms.items()) if DEFAULT_TERMS.get(name) != word)


def _fault(quantity: Quantity, model: ModelPrice, terms: Mapping[str, str], found: int) -> str:
    words = ", ".join(f"{name} {value}" for name, value in sorted(terms.items()))
    how_many = "has no price" if found == 0 else f"has {found} prices"
    return f"{quantity.amount} {quantity.meter} of {model.name} {how_many} on these terms: {words}"
