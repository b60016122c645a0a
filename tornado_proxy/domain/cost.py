"""Line items and totals: decimal US dollars from text to text, never a binary float."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec
from msgspec.structs import replace

#: Amounts are rounded to 1e-12 USD.  Ten cached tokens at 0.01 USD per million (1e-7 USD) are still exact.
AMOUNT_QUANTUM = Decimal("1e-12")

#: The type of the line item for the operator's own charge.
SURCHARGE = "llm_proxy_surcharge"

ZERO = Decimal(0)


def round_amount(amount: Decimal) -> Decimal:
    """Return `amount` rounded half-even to 1e-12 USD."""
    return amount.quantize(AMOUNT_QUANTUM, rounding=ROUND_HALF_EVEN)


class LineItem(msgspec.Struct, frozen=True):
    """quantity x unit price = amount, in USD.

    `unit` is a unit of the price registry (`per_million_tokens`, ...) or, for the surcharge, `usd`.  `unit_price` and
    `amount` are None if the quantity has no price: the quantity is shown, and never counted as zero in silence.
    `price_hash` identifies the price entry that rated the item.  `terms` are the (name, value) pairs that differ from
    the default (domain/terms.py), `context_tokens` is the request's whole input: both allow rating the item again.
    """

    type: str
    quantity: Decimal
    unit: str
    unit_price: Decimal | None
    amount: Decimal | None
    model: str | None = None
    price_hash: str | None = None
    terms: tuple[tuple[str, str], ...] = ()
    context_tokens: int = 0


class Cost(msgspec.Struct, frozen=True):
    """An itemised bill.  `line_items` end with the surcharge; `total` is their exact sum.

    `faults` describe usage without a price; `notes` describe assumptions of a complete bill.
    """

    line_items: tuple[LineItem, ...]
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def bill(
    items: Iterable[LineItem], surcharge_rate: Decimal, faults: Iterable[str] = (), notes: Iterable[str] = ()
) -> Cost:
    """Return a bill of provider line items with the surcharge: `surcharge_rate` x the provider subtotal.

    Without items the bill has no surcharge line: the bill of a free request is empty.
    """
    provider_items = tuple(items)
    subtotal = sum((item.amount for item in provider_items if item.amount is not None), ZERO)
    if not provider_items:
        return Cost((), ZERO, ZERO, ZERO, tuple(faults), tuple(notes))
    # On the sum, not on each item: rounding once keeps the surcharge within half a quantum.
    surcharge = round_amount(subtotal * surcharge_rate)
    item = LineItem(SURCHARGE, subtotal, "usd", surcharge_rate, surcharge)
    return Cost((*provider_items, item), subtotal, surcharge, subtotal + surcharge, tuple(faults), tuple(notes))


def merge_items(cost: Cost) -> Cost:
    """Return `cost` with items of the same type, model, terms and price added up: a batch has thousands of them.

    `context_tokens` of a merged item is that of the largest request; all of them had the same price.
    """
    merged: dict[object, LineItem] = {}
    for item in cost.line_items:
        key = (item.type, item.model, item.unit, item.unit_price, item.price_hash, item.terms)
        earlier = merged.get(key)
        if earlier is None:
            merged[key] = item
            continue
        # Add the rounded amounts.  Pricing the summed quantity would change the total of the requests.
        amount = None if item.amount is None or earlier.amount is None else earlier.amount + item.amount
        context = max(earlier.context_tokens, item.context_tokens)
        quantity = earlier.quantity + item.quantity
        merged[key] = replace(item, quantity=quantity, amount=amount, context_tokens=context)
    return replace(cost, line_items=tuple(merged.values()), faults=tuple(dict.fromkeys(cost.faults)))
