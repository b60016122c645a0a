"""Explains a ledger record: the origin of each amount, and whether today's prices still agree.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.cost import DERIVED_ITEMS, DISCOUNT, SURCHARGE, LineItem, round_amount
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.rows import format_decimal, read_line_items
from tornado_proxy.pricing.book.price import UNITS
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import Entry, Lookup, find_entry
from tornado_proxy.reports.model_prices import date_members, describe_conditions, describe_unit

_BASIS_TEXTS: Mapping[str, str] = {
    Basis.REPORTED: "the provider's own usage",
    Basis.INFERRED: "from the request and the form of the response",
    Basis.ESTIMATED: "the provider did not state all usage; the rest is estimated",
    Basis.PENDING: "the provider reports the usage later",
    Basis.UNSETTLED: "not known, or incomplete; needs a check by the operator",
    Basis.FREE: "a free endpoint, or nothing reached the provider",
}

#: The columns of a record that can be explained.
EXPLAINED_COLUMNS = (*RECORD_COLUMNS, "retry_of")

#: Members of the record that are shown.  The others are shown in another form, or are of internal use.
_SHOWN = (
    *("request_id", "project_id", "room", "participant", "user", "issuer", "session", "provider", "endpoint"),
    "method",
    *("model_requested", "model", "status", "outcome", "basis", "estimate_method", "started_at", "ended_at"),
    *("subtotal", "surcharge", "total", "upstream_request_id"),
    *ATTRIBUTION_FIELDS,
    *("retry_count", "retry_of"),
)


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """A provider line item, and today's registry entry for it."""

    item: LineItem
    lookup: Lookup

    @property
    def entry(self) -> Entry | None:
        """Today's entry if it is the one that rated the item, else None."""
        entry = self.lookup.entry
        return entry if entry is not None and entry.price_hash == self.item.price_hash else None

    @property
    def exact(self) -> bool:
        """True if quantity x unit price is the amount; False for a sum of amounts that were rounded one by one."""
        item = self.item
        # A unit that this version does not know was written by a later one.
        if item.unit_price is None or item.unit not in UNITS:
            return item.amount is None
        return item.amount == round_amount(item.quantity * item.unit_price / UNITS[item.unit])

    def warnings(self) -> Iterator[str]:
        """Yield warnings about an unpriced quantity and about a price that has changed since."""
        item, today = self.item, self.lookup.entry
        name = f"{item.type} of {item.model}" if item.model else item.type
        if item.amount is None:
            yield f"{name} has no price; {format_decimal(item.quantity)} are not charged"
        elif today is None:
            yield f"{name}: today's price files have no price for it ({self.lookup.fault})"
        elif self.entry is None:
            yield (
                f"{name}: today's price files have another entry, {format_decimal(today.unit_price)} "
                f"{describe_unit(today.card.unit)} from {today.card.source} ({today.card.checked})"
            )

    def members(self) -> dict[str, Any]:
        """Return the item with its price entry as JSON members."""
        item, entry = self.item, self.entry
        return {
            "type": item.type,
            "model": item.model,
            "quantity": format_decimal(item.quantity),
            "unit": item.unit or None,
            "unit_price": None if item.unit_price is None else format_decimal(item.unit_price),
            "amount": None if item.amount is None else format_decimal(item.amount),
            "terms": dict(item.terms),
            "context_tokens": item.context_tokens or None,
            "price_hash": item.price_hash,
            "price": None if entry is None else _entry_members(entry),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """An explained record.  `usage` is the provider's usage; `surcharge_rate` is a decimal as text.

    `discount` is the line item of the provider's discount, None without one: its quantity is the sum at list prices.
    """

    record: Mapping[str, Any]
    usage: object
    items: tuple[ExplainedItem, ...]
    surcharge_rate: str | None
    basis_text: str
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    discount: LineItem | None = None

    def sums(self) -> list[tuple[str, Decimal]]:
        """Return the amounts below the line items with their titles, USD; the last one is the total."""
        record, rate = self.record, self.surcharge_rate
        return [
            *_discount_sums(self.discount),
            ("subtotal", Decimal(record["subtotal"])),
            (f"surcharge, {rate} of the subtotal" if rate is not None else "surcharge", Decimal(record["surcharge"])),
            ("total USD", Decimal(record["total"])),
        ]

    def members(self) -> dict[str, Any]:
        """Return the explanation as JSON members."""
        return {
            **self.record,
            "usage": self.usage,
            "line_items": [item.members() for item in self.items],
            "discount": None if self.discount is None else _discount_members(self.discount),
            "surcharge_rate": self.surcharge_rate,
            "basis_words": self.basis_text,
            "faults": list(self.faults),
            "warnings": list(self.warnings),
        }


def explain_record(record: Mapping[str, object], prices: PriceBook) -> Explanation:
    """Return the explanation of a record, which must have the EXPLAINED_COLUMNS."""
    # Prices of the day on which the request began, as at the first rating.
    started_at = datetime.fromisoformat(str(record["started_at"]))
    line_items = read_line_items(_text_or_none(record["line_items"]))
    explained = tuple(
        ExplainedItem(item, find_entry(prices, str(record["provider"]), item, started_at))
        for item in line_items
        if item.type not in DERIVED_ITEMS
    )
    rate = next((item.unit_price for item in line_items if item.type == SURCHARGE), None)
    usage = _text_or_none(record["usage"])
    warnings = [warning for item in explained for warning in item.warnings()]
    return Explanation(
        record={name: record[name] for name in _SHOWN},
        usage=None if usage is None else json.loads(usage),
        items=explained,
        surcharge_rate=None if rate is None else format_decimal(rate),
        basis_text=_BASIS_TEXTS.get(str(record["basis"]), ""),
        faults=tuple(json.loads(_text_or_none(record["faults"]) or "[]")),
        warnings=(*warnings, *_check_sum(record, line_items)),
        discount=next((item for item in line_items if item.type == DISCOUNT), None),
    )


def _discount_sums(item: LineItem | None) -> list[tuple[str, Decimal]]:
    """Return the sum at list prices and the provider's discount, with their titles; none without a discount."""
    if item is None or item.unit_price is None or item.amount is None:
        return []
    return [("list prices", item.quantity), (f"discount, {format_decimal(-item.unit_price)} of the list", item.amount)]


def _discount_members(item: LineItem) -> dict[str, str]:
    rate, amount = item.unit_price or Decimal(0), item.amount or Decimal(0)
    return {
        "list": format_decimal(item.quantity),
        "rate": format_decimal(-rate),
        "amount": format_decimal(amount),
    }


def _entry_members(entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "model": entry.model.name,
        "when": describe_conditions(card.conditions),
        "price": format_decimal(card.prices[entry.meter]),
        "unit": card.unit,
        "modifiers": [
            {"name": modifier.name, "multiply": format_decimal(modifier.factor)} for modifier in entry.modifiers
        ],
        **date_members(card),
        "source": card.source,
        "checked": card.checked,
    }


def _check_sum(record: Mapping[str, object], items: tuple[LineItem, ...]) -> Iterator[str]:
    """Yield a warning if the line items do not add up to the record's total."""
    total = sum((item.amount for item in items if item.amount is not None), Decimal(0))
    if total != Decimal(str(record["total"])):
        yield f"the line items add up to {format_decimal(total)}, but the record's total is {record['total']}"


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
