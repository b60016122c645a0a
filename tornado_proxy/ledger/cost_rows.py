"""Converts line items to the text of a record's column `line_items`, and back.

Amounts are decimal strings without exponents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.text import format_decimal

_encode = msgspec.json.Encoder().encode


def read_line_items(text: str | None) -> tuple[LineItem, ...]:
    """Return the line items of a record from its column `line_items`."""
    return tuple(_read_item(item) for item in json.loads(text or "[]"))


def _read_item(item: dict[str, Any]) -> LineItem:
    return LineItem(
        type=item["type"],
        quantity=Decimal(item["quantity"]),
        unit=item["unit"],
        unit_price=None if item["unit_price"] is None else Decimal(item["unit_price"]),
        amount=None if item["amount"] is None else Decimal(item["amount"]),
        model=item["model"],
        price_hash=item["price_hash"],
        terms=tuple(item.get("terms", {}).items()),
        context_tokens=item.get("context_tokens", 0),
    )


class _ItemMembers(msgspec.Struct, omit_defaults=True):
    """The JSON object of a line item.  msgspec writes a Decimal as str() does, in quotation marks."""

    type: str
    quantity: Decimal | str
    unit: str
    unit_price: Decimal | str | None
    amount: str | None
    model: str | None
    price_hash: str | None
    terms: dict[str, str] = {}  # msgspec copies it
    context_tokens: int = 0


def format_items(items: Iterable[LineItem]) -> str:
    """Return line items as text of the column `line_items`."""
    rows = [
        _ItemMembers(
            item.type,
            item.quantity,
            item.unit,
            item.unit_price,
            # Amounts of small requests have an exponent, quantities and prices almost never.
            None if item.amount is None else format_decimal(item.amount),
            item.model,
            item.price_hash,
            dict(item.terms) if item.terms else {},
            item.context_tokens,
        )
        for item in items
    ]
    text = _encode_items(rows)
    if "E" not in text:
        return text
    for row in rows:
        row.quantity = f"{row.quantity:f}"
        row.unit_price = None if row.unit_price is None else f"{row.unit_price:f}"
    return _encode_items(rows)


def _encode_items(rows: Sequence[_ItemMembers]) -> str:
    try:
        return _encode(rows).decode()  # line items are a third of the work on a record
    except UnicodeEncodeError:
        # A model's name has half of a surrogate pair, which msgspec refuses.
        return json.dumps(msgspec.to_builtins(rows), separators=(",", ":"))
