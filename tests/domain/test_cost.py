"""Line items, totals, and merged line items."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tornado_proxy.domain.cost import (
    DISCOUNT,
    SURCHARGE,
    BillRates,
    Cost,
    Discount,
    LineItem,
    bill,
    merge_items,
    round_amount,
)

ITEM = LineItem("input_tokens", Decimal(10), "per_million_tokens", Decimal("0.15"), Decimal("0.0000015"), "gpt-4o-mini")
AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=12)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        pytest.param("0.0000000000005", "0.000000000000", id="half goes to the even zero"),
        pytest.param("0.0000000000015", "0.000000000002", id="half goes to the even two"),
        pytest.param("0.0000000000025", "0.000000000002", id="half goes down to the even two"),
        pytest.param("0.00000000000051", "0.000000000001", id="more than half goes up"),
        pytest.param("12345.678", "12345.678000000000", id="twelve places always"),
    ],
)
def test_amounts_are_rounded_half_even_to_12_places(amount: str, rounded: str) -> None:
    assert f"{round_amount(Decimal(amount)):f}" == rounded


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


@pytest.mark.parametrize(
    ("at", "rate"),
    [
        pytest.param("2026-02-28T23:59:59.999Z", "0", id="the day before"),
        pytest.param("2026-03-01T00:00:00Z", "0.1", id="the first day"),
        pytest.param("2026-03-31T23:59:59.999Z", "0.1", id="the last day"),
        pytest.param("2026-04-01T00:00:00Z", "0", id="the day after"),
    ],
)
def test_discount_is_granted_on_its_days(at: str, rate: str) -> None:
    discount = Discount(Decimal("0.1"), datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))

    assert discount.rate_at(datetime.fromisoformat(at)) == Decimal(rate)


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


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), AMOUNTS | st.none()), max_size=20))
def test_merging_keeps_quantities_and_amounts(parts: list[tuple[str, Decimal | None]]) -> None:
    items = tuple(replace(ITEM, model=model, amount=amount) for model, amount in parts)
    merged = merge_items(Cost(items, Decimal(1), Decimal(2), Decimal(3), ("twice", "twice", "once")))

    for model in ("a", "b"):
        of_model = [amount for name, amount in parts if name == model]
        (item,) = [item for item in merged.line_items if item.model == model] or [None]
        assert (item is None) == (not of_model)
        if item is not None:
            assert item.quantity == 10 * len(of_model)
            priced = [amount for amount in of_model if amount is not None]
            assert item.amount == (sum(priced) if len(priced) == len(of_model) else None)
    assert (merged.subtotal, merged.total, merged.faults) == (Decimal(1), Decimal(3), ("twice", "once"))


def test_items_with_different_terms_or_prices_are_not_merged() -> None:
    items = (
        replace(ITEM, context_tokens=5),
        replace(ITEM, context_tokens=9),
        replace(ITEM, context_tokens=7),
        replace(ITEM, terms=(("tier", "flex"),)),
        replace(ITEM, price_hash="another"),
        replace(ITEM, unit_price=Decimal(1)),
    )

    merged = merge_items(Cost(items, Decimal(0), Decimal(0), Decimal(0)))

    assert [(item.quantity, item.context_tokens) for item in merged.line_items] == [(30, 9), (10, 0), (10, 0), (10, 0)]
