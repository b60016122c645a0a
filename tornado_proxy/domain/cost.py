"""Line items and totals: decimal US dollars from text to text, never a binary float."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.text import format_decimal

#: Amounts are rounded to 1e-12 USD.  Ten cached tokens at 0.01 USD per million (1e-7 USD) are still exact.
AMOUNT_DECIMALS = 12
AMOUNT_QUANTUM = Decimal("1e-12")

#: The type of the line item for the operator's own charge.
SURCHARGE = "llm_proxy_surcharge"

#: The type of the line item for what the provider charges less than its list prices.  Its amount is negative.
DISCOUNT = "provider_discount"

#: The types of line items that are computed from the others.
DERIVED_ITEMS = frozenset({DISCOUNT, SURCHARGE})

ZERO = Decimal(0)


def round_amount(amount: Decimal) -> Decimal:
    """Return `amount` rounded half-even to 1e-12 USD."""
    return amount.quantize(AMOUNT_QUANTUM, ROUND_HALF_EVEN)


def round_up(amount: Decimal) -> Decimal:
    """Return `amount` rounded up to 1e-12 USD."""
    # Not quantize(): it raises an error if the result has more than 28 digits.
    return amount.scaleb(AMOUNT_DECIMALS).to_integral_value(ROUND_CEILING).scaleb(-AMOUNT_DECIMALS)


class LineItem(msgspec.Struct, frozen=True):
    """quantity x unit price = amount, in USD.

    `unit` is a unit of the price registry (`per_million_tokens`, ...) or, for DERIVED_ITEMS, `usd`.  `unit_price` and
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


class CostBound(msgspec.Struct, frozen=True, gc=False):
    """The most that a request can cost: USD, `total` with the surcharge, `subtotal` without; and tokens.

    The amounts have at most 12 decimals, so that slices, which count in 1e-12 USD, free exactly what rows reserve.
    """

    total: Decimal = ZERO
    subtotal: Decimal = ZERO
    tokens: int = 0

    def state(self) -> StatedBound:
        """Return the bound as the ledger stores it."""
        return StatedBound(format_decimal(self.total), format_decimal(self.subtotal))


class StatedBound(msgspec.Struct, frozen=True, gc=False):
    """The USD of a bound as text without an exponent: requests that share a bound share its text."""

    total: str
    subtotal: str


#: The bound of a request that costs nothing.
NO_BOUND = CostBound()


class Cost(msgspec.Struct, frozen=True):
    """An itemised bill.  `line_items` end with the discount and the surcharge; `total` is their exact sum.

    `subtotal` is the provider's charge: the line items at list prices, less the discount.
    `faults` describe usage without a price; `notes` describe assumptions of a complete bill.
    """

    line_items: tuple[LineItem, ...]
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class BillRates(msgspec.Struct, frozen=True):
    """The fractions that derive line items: the discount of the list prices, the surcharge of the discounted sum."""

    surcharge: Decimal = ZERO
    discount: Decimal = ZERO

    @classmethod
    def of(cls, items: Iterable[LineItem], surcharge: Decimal = ZERO) -> BillRates:
        """Return the rates of a bill with these line items; `surcharge` if it has none."""
        rates = {item.type: item.unit_price for item in items if item.type in DERIVED_ITEMS}
        found, discount = rates.get(SURCHARGE), rates.get(DISCOUNT)
        return cls(surcharge if found is None else found, ZERO if discount is None else -discount)


class Discount(msgspec.Struct, frozen=True):
    """A discount that a provider grants on the requests of a key.

    Attributes:
        rate: The fraction of the list prices that is not charged, from 0 to 1.
        begins: The first moment at which a request begins with it, aware UTC; None for always.
        ends: The moment at which it has ended; None for never.
    """

    rate: Decimal
    begins: datetime | None = None
    ends: datetime | None = None

    def rate_at(self, at: datetime) -> Decimal:
        """Return the rate for a request that began at `at`."""
        begun = self.begins is None or self.begins <= at
        return self.rate if begun and (self.ends is None or at < self.ends) else ZERO


#: The discount of a key that has none.
NO_DISCOUNT = Discount(ZERO)


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
