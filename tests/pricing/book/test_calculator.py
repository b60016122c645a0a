"""The bill of line items: discount, surcharge and total."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tornado_proxy.domain.cost import DISCOUNT, SURCHARGE, BillRates, Cost, LineItem
from tornado_proxy.pricing.book.calculator import bill

ITEM = LineItem("input_tokens", Decimal(10), "per_million_tokens", Decimal("0.15"), Decimal("0.0000015"), "gpt-4o-mini")
AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=12)


def test_surcharge_is_a_line_item_and_the_total_is_the_sum() -> None:
    cost = bill([ITEM, replace(ITEM, amount=Decimal("0.00002"))], Decimal("0.05"))

    assert [item.type for item in cost.line_items] == ["input_tokens", "input_tokens", SURCHARGE]
    surcharge = cost.line_items[-1]
    assert (surcharge.quantity, surcharge.unit, surcharge.unit_price) == (Decimal("0.0000215"), "usd", Decimal("0.05"))
    assert (cost.subtotal, cost.surcharge, cost.total) == (
        Decimal("0.0000215"),
        Decimal("0.000001075000"),
        Decimal("0.000022575"),
    )


def test_discount_is_a_line_item_and_the_surcharge_is_of_what_is_charged() -> None:
    cost = bill([ITEM, replace(ITEM, amount=Decimal("0.00002"))], Decimal("0.05"), discount_rate=Decimal("0.1"))

    discount, surcharge = cost.line_items[-2:]
    # 10 % of 0.0000215, then 5 % of 0.00001935.
    assert (discount.type, discount.quantity, discount.unit) == (DISCOUNT, Decimal("0.0000215"), "usd")
    assert (discount.unit_price, discount.amount) == (Decimal("-0.1"), Decimal("-0.00000215"))
    assert (surcharge.type, surcharge.quantity, surcharge.amount) == (
        SURCHARGE,
        Decimal("0.00001935"),
        Decimal("0.0000009675"),
    )
    assert (cost.subtotal, cost.total) == (Decimal("0.00001935"), Decimal("0.0000203175"))
    assert BillRates.of(cost.line_items) == BillRates(Decimal("0.05"), Decimal("0.1"))


def test_bill_without_items_has_no_surcharge_line() -> None:
    assert bill((), Decimal("0.05"), ["a fault"]) == Cost((), Decimal(0), Decimal(0), Decimal(0), ("a fault",))


def test_item_without_a_price_is_shown_and_not_summed() -> None:
    cost = bill([ITEM, replace(ITEM, type="images", unit_price=None, amount=None)], Decimal(0))

    assert [item.type for item in cost.line_items] == ["input_tokens", "images", SURCHARGE]
    assert cost.total == Decimal("0.0000015")


@given(st.lists(AMOUNTS, min_size=1, max_size=20), st.decimals(0, 1, places=4), st.decimals(0, 1, places=6))
def test_total_is_the_exact_sum_of_its_items(amounts: list[Decimal], rate: Decimal, discount: Decimal) -> None:
    cost = bill([replace(ITEM, amount=amount) for amount in amounts], rate, discount_rate=discount)

    assert cost.total == sum(item.amount for item in cost.line_items if item.amount is not None)
    charged = sum(item.amount for item in cost.line_items if item.type == DISCOUNT and item.amount is not None)
    assert cost.subtotal == sum(amounts) + charged
    assert cost.surcharge >= 0
