"""Usage to a bill: quantity x unit price, rounded half-even to 1e-12 USD, with exactly one card for each meter.

A quantity with no price, or with two, becomes a line item without an amount, and a fault that explains it.  It is never
billed as zero in silence.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.cost import AMOUNT_QUANTUM, DISCOUNT, SURCHARGE, ZERO, Cost, LineItem
from tornado_proxy.domain.terms import NO_TERMS, Terms
from tornado_proxy.domain.usage import Meter, Quantity, UsageItem
from tornado_proxy.pricing.book.price import UNITS, ModelPrice, Quote, fingerprint

#: Terms and intervals whose quotes are cached for one model.  The cache needs a limit, because the terms contain words
#: of responses.
MAX_QUOTED_TERMS = 1000


class Itemised(msgspec.Struct):
    """Line items of one or more usage items, and the faults and notes made while pricing them."""

    items: list[LineItem] = msgspec.field(default_factory=list)
    faults: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


def itemise(usage_item: UsageItem, model: ModelPrice, terms: Terms, at: datetime, into: Itemised) -> None:
    """Append a line item to `into` for each quantity above zero, at the prices of `model` for `terms` at `at`."""
    # Providers choose the price by the length of each prompt.  Without such prices one line for all prompts is enough.
    if usage_item.prompts and model.depends_on_length():
        for prompt in usage_item.prompts:
            itemise(prompt, model, terms, at, into)
        return
    quotes = _find_quotes(model, terms, usage_item.context_tokens, at)
    for quantity in usage_item.quantities:
        # Providers state zero for each meter that a request does not use; such lines would only lengthen records.
        if not quantity.amount:
            continue
        own_terms, own_quotes = terms, quotes
        if quantity.terms is not NO_TERMS:
            own_terms = terms.override(quantity.terms)
            own_quotes = _find_quotes(model, own_terms, usage_item.context_tokens, at)
        quote = own_quotes.get(quantity.meter) or _quote(
            model, quantity.meter, own_terms, usage_item.context_tokens, at
        )
        if isinstance(quote, Quote):
            own_quotes[quantity.meter] = quote
            into.items.append(_priced(quantity, model, quote, usage_item.context_tokens))
            if usage_item.summed and quote.over is not None:
                into.notes.append(_describe_upper_bound(model, quote.over))
        else:
            into.items.append(_unpriced(quantity, model, own_terms, usage_item.context_tokens))
            into.faults.append(_describe_fault(quantity, model, own_terms, quote))


def bill(
    items: Iterable[LineItem],
    surcharge_rate: Decimal,
    faults: Iterable[str] = (),
    notes: Iterable[str] = (),
    *,
    discount_rate: Decimal = ZERO,
) -> Cost:
    """Return the bill of provider line items at list prices, with the discount and the surcharge.

    The surcharge is `surcharge_rate` x what the provider charges: the items less the discount.  Without items the bill
    has neither: the bill of a free request is empty.
    """
    provider_items = tuple(items)
    subtotal = sum([item.amount for item in provider_items if item.amount is not None], ZERO)
    if not provider_items:
        return Cost((), ZERO, ZERO, ZERO, tuple(faults), tuple(notes))
    # On the sum, not on each item: rounding once keeps discount and surcharge within half a quantum each.
    if discount_rate:
        discount = ZERO - (subtotal * discount_rate).quantize(AMOUNT_QUANTUM, ROUND_HALF_EVEN)
        provider_items = (*provider_items, LineItem(DISCOUNT, subtotal, "usd", -discount_rate, discount))
        subtotal += discount
    surcharge = (subtotal * surcharge_rate).quantize(AMOUNT_QUANTUM, ROUND_HALF_EVEN)
    item = LineItem(SURCHARGE, subtotal, "usd", surcharge_rate, surcharge)
    return Cost((*provider_items, item), subtotal, surcharge, subtotal + surcharge, tuple(faults), tuple(notes))


def without_price(quantity: Quantity, model: str | None) -> LineItem:
    """Return a line item that shows a quantity and charges nothing for it."""
    return LineItem(quantity.meter.value, quantity.amount, "", None, None, model)


def _find_quotes(model: ModelPrice, terms: Terms, context_tokens: int, at: datetime) -> dict[Meter, Quote]:
    """Return the quotes that are known on `terms`, in an interval of input lengths and one of time, to be added to."""
    # Prices are constant while over < length <= up_to, and effective_from <= at < effective_until.
    key = (terms, bisect_left(model.limits, context_tokens), bisect_right(model.dates, at))
    quotes = model.quotes.get(key)
    if quotes is None:
        quotes = {}
        if len(model.quotes) < MAX_QUOTED_TERMS:
            model.quotes[key] = quotes
    return quotes


def _quote(model: ModelPrice, meter: Meter, terms: Terms, context_tokens: int, at: datetime) -> Quote | int:
    """Return the quote for one meter, or the number of matching cards if it is not one."""
    cards = model.find(meter, terms, context_tokens, at)
    if len(cards) != 1:
        return len(cards)
    card = cards[0]
    unit_price = card.prices[meter] * model.factor(card.unit, terms, context_tokens)
    price_hash = fingerprint(model.name, meter, unit_price, card)
    over = card.conditions.over
    terms_of_line = terms.non_default_pairs()
    return Quote(card.unit, unit_price, UNITS[card.unit], price_hash, terms_of_line, over, card.minimum)


def _unpriced(quantity: Quantity, model: ModelPrice, terms: Terms, context_tokens: int) -> LineItem:
    item = without_price(quantity, model.name)
    return replace(item, terms=terms.non_default_pairs(), context_tokens=context_tokens)


def _priced(quantity: Quantity, model: ModelPrice, quote: Quote, context_tokens: int) -> LineItem:
    charged = quantity.amount if quote.minimum is None else max(quantity.amount, quote.minimum)
    return LineItem(
        type=str(quantity.meter),
        quantity=charged,
        unit=quote.unit,
        unit_price=quote.unit_price,
        # Multiply before dividing: a price per minute divided by 60 first would lose digits.
        amount=(charged * quote.unit_price / quote.divisor).quantize(AMOUNT_QUANTUM, ROUND_HALF_EVEN),
        model=model.name,
        price_hash=quote.price_hash,
        terms=quote.terms,
        context_tokens=context_tokens,
    )


def _describe_fault(quantity: Quantity, model: ModelPrice, terms: Terms, card_count: int) -> str:
    term_list = ", ".join(f"{name} {value}" for name, value in terms.pairs())
    prices = "has no price" if card_count == 0 else f"has {card_count} prices"
    return f"{quantity.amount} {quantity.meter} of {model.name} {prices} on these terms: {term_list}"


def _describe_upper_bound(model: ModelPrice, over: int) -> str:
    return (
        f"{model.name} has higher prices for a prompt of more than {over} input tokens; the response states only the "
        "sum of its prompts, so the cost is an upper bound"
    )
