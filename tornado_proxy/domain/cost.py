"""Line items and totals.  Decimal US dollars from text to text; never a binary float."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal

#: Amounts are rounded to a millionth of a millionth of a dollar: ten cached tokens at 0.01 per million are still exact.
AMOUNT_QUANTUM = Decimal("1e-12")

SURCHARGE = "llm_proxy_surcharge"

ZERO = Decimal(0)


def round_amount(amount: Decimal) -> Decimal:
    """Round half-even to 1e-12 USD."""
    return amount.quantize(AMOUNT_QUANTUM, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class LineItem:
    """quantity x unit price = amount, in USD.

    `unit` is a unit of the price registry (`per_million_tokens`, ...) or, for the surcharge, `usd`.  `unit_price` and
    `amount` are None when the quantity has no price: it is shown, never counted as zero in silence.
    `price_hash` identifies the price entry that the item was rated with.  `terms` are those of the request that are not
    the registry's defaults, `context_tokens` its whole input: with them the same quantity can be rated again.
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


@dataclass(frozen=True, slots=True)
class Cost:
    """An itemised bill.  `line_items` end with the surcharge; `total` is their exact sum."""

    line_items: tuple[LineItem, ...]
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    faults: tuple[str, ...] = ()


def bill(items: Iterable[LineItem], surcharge_rate: Decimal, faults: Iterable[str] = ()) -> Cost:
    """Add the surcharge (`surcharge_rate` x the provider subtotal) to provider line items and sum them.

    No item, no surcharge line: a call that cost nothing has an empty bill.
    """
    provider_items = tuple(items)
    subtotal = sum((item.amount for item in provider_items if item.amount is not None), ZERO)
    if not provider_items:
        return Cost((), ZERO, ZERO, ZERO, tuple(faults))
    surcharge = round_amount(subtotal * surcharge_rate)
    item = LineItem(SURCHARGE, subtotal, "usd", surcharge_rate, surcharge)
    return Cost((*provider_items, item), subtotal, surcharge, subtotal + surcharge, tuple(faults))


def merge_items(cost: Cost) -> Cost:
    """`cost` with the items that share a type, a model, terms and a price added up: a batch has thousands of them.

    `context_tokens` is then that of the largest request; it chose the same price as the others.
    """
    merged: dict[object, LineItem] = {}
    for item in cost.line_items:
        key = (item.type, item.model, item.unit, item.unit_price, item.price_hash, item.terms)
        before = merged.get(key)
        if before is None:
            merged[key] = item
            continue
        amount = None if item.amount is None or before.amount is None else before.amount + item.amount
        context = max(before.context_tokens, item.context_tokens)
        quantity = before.quantity + item.quantity
        merged[key] = replace(item, quantity=quantity, amount=amount, context_tokens=context)
    return replace(cost, line_items=tuple(merged.values()), faults=tuple(dict.fromkeys(cost.faults)))
