"""Bills as columns of records, and line items read from them."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.ledger.sample_records import COST, make_intent, make_record
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.ledger.cost_rows import read_line_items
from tornado_proxy.ledger.rows import make_record_row


def test_line_items_are_read_as_they_were_written() -> None:
    item = LineItem(
        "input_tokens",
        Decimal(3),
        "per_million_tokens",
        None,
        None,
        "half \udc80",
        "h1",
        terms=(("region", "eu"),),
        context_tokens=200_001,
    )
    cost = Cost((*COST.line_items, item), Decimal(0), Decimal(0), Decimal(0))

    text = make_record_row(make_record(make_intent("r1"), cost=cost)).line_items

    assert isinstance(text, str)
    assert read_line_items(text) == cost.line_items
    assert read_line_items(None) == ()


@pytest.mark.parametrize("model", ["gpt-5.4", "Exact-E1", "half \ud800"])
def test_line_items_have_plain_digits_and_their_own_names(model: str) -> None:
    item = LineItem("input_tokens", Decimal("1E+3"), "per_hour", Decimal("1E-7"), Decimal("1E-10"), model, "e5")
    unpriced = LineItem("images", Decimal(2), "", None, None, model)
    cost = Cost((item, unpriced), Decimal("1E-10"), Decimal(0), Decimal("1E-10"))

    text = make_record_row(make_record(make_intent("r1"), cost=cost)).line_items

    assert isinstance(text, str)
    assert json.loads(text) == [
        {
            "type": "input_tokens",
            "quantity": "1000",
            "unit": "per_hour",
            "unit_price": "0.0000001",
            "amount": "0.0000000001",
            "model": model,
            "price_hash": "e5",
        },
        {
            "type": "images",
            "quantity": "2",
            "unit": "",
            "unit_price": None,
            "amount": None,
            "model": model,
            "price_hash": None,
        },
    ]
