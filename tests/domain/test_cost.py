"""Line items, totals, and merged line items."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tornado_proxy.domain.cost import (
    Cost,
    Discount,
    LineItem,
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
