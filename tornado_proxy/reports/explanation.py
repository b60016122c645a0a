"""A record of the ledger, taken apart: where each amount comes from, and whether today's prices still say so.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tornado_proxy.domain.cost import SURCHARGE, LineItem, round_amount
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import format_decimal, read_line_items
from tornado_proxy.pricing.book.price import UNITS, Conditions
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import Entry, Lookup, find_entry

_BASIS_WORDS: Mapping[str, str] = {
    Basis.REPORTED: "the provider's own usage",
    Basis.INFERRED: "from the request and the shape of the answer",
    Basis.ESTIMATED: "the provider stated no usage; what was seen was counted",
    Basis.PENDING: "the provider reports the usage later",
    Basis.UNSETTLED: "not known, or not whole; somebody must look at it",
    Basis.FREE: "an endpoint that costs nothing, or nothing reached the provider",
}

#: Members of the record that are shown; the others are taken apart or are for machines.
_SHOWN = (
    *("request_id", "project_id", "room", "participant", "user", "session", "provider", "endpoint", "method"),
    *("model_requested", "model", "status", "outcome", "basis", "estimate_method", "started_at", "ended_at"),
    *("subtotal", "surcharge", "total", "upstream_request_id"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line item of the provider's, and the entry of today's price files for it."""

    item: LineItem
    lookup: Lookup

    @property
    def entry(self) -> Entry | None:
        """Today's entry where it is the one that the line was rated with."""
        entry = self.lookup.entry
        return entry if entry is not None and entry.price_hash == self.item.price_hash else None

    @property
    def exact(self) -> bool:
        """Whether quantity x unit price is the amount; where not, it is a sum of amounts that were rounded."""
        item = self.item
        if item.unit_price is None or item.unit not in UNITS:
            return item.amount is None
        return item.amount == round_amount(item.quantity * item.unit_price / UNITS[item.unit])

    def warnings(self) -> Iterator[str]:
        """What a reader of the bill must know."""
        item, today = self.item, self.lookup.entry
        name = f"{item.type} of {item.model}" if item.model else item.type
        if item.amount is None:
            yield f"{name} was not charged for want of a price: {format_decimal(item.quantity)} are not in the total"
        elif today is None:
            yield f"{name}: today's price files have no such price any more ({self.lookup.fault})"
        elif self.entry is None:
            yield (
                f"{name}: today's price files have another entry, {format_decimal(today.unit_price)} "
                f"{unit_words(today.card.unit)} from {today.card.source} ({today.card.checked})"
            )

    def members(self) -> dict[str, Any]:
        """As JSON, with the price entry."""
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
            "price": None if entry is None else entry_members(entry),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A record taken apart.  `usage` is what the provider sent; `surcharge_rate` a decimal in text."""

    record: Mapping[str, Any]
    usage: object
    lines: tuple[Line, ...]
    surcharge_rate: str | None
    basis_words: str
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def explain_record(record: Mapping[str, object], prices: PriceBook) -> Explanation:
    """Take a record with all its columns apart."""
    started_at = datetime.fromisoformat(str(record["started_at"]))
    items = read_line_items(_text(record["line_items"]))
    lines = tuple(
        Line(item, find_entry(prices, str(record["provider"]), item, started_at))
        for item in items
        if item.type != SURCHARGE
    )
    rate = next((item.unit_price for item in items if item.type == SURCHARGE), None)
    usage = _text(record["usage"])
    return Explanation(
        record={name: record[name] for name in _SHOWN},
        usage=None if usage is None else json.loads(usage),
        lines=lines,
        surcharge_rate=None if rate is None else format_decimal(rate),
        basis_words=_BASIS_WORDS.get(str(record["basis"]), ""),
        faults=tuple(json.loads(_text(record["faults"]) or "[]")),
        warnings=tuple(warning for line in lines for warning in line.warnings()) + tuple(_sums(record, items)),
    )


def entry_members(entry: Entry) -> dict[str, Any]:
    """A price entry as JSON."""
    card = entry.card
    return {
        "model": entry.model.name,
        "when": conditions_words(card.conditions),
        "price": format_decimal(card.prices[entry.meter]),
        "unit": card.unit,
        "modifiers": [{"name": one.name, "multiply": format_decimal(one.factor)} for one in entry.modifiers],
        "effective_from": None if card.effective_from is None else f"{card.effective_from:%Y-%m-%d}",
        "effective_until": None if card.effective_until is None else f"{card.effective_until:%Y-%m-%d}",
        "source": card.source,
        "checked": card.checked,
    }


def conditions_words(conditions: Conditions) -> str:
    """Conditions as a reader says them: "service_tier batch, input_tokens over 272000"."""
    words = [f"{name} {' or '.join(sorted(accepted))}" for name, accepted in conditions.accepted]
    if conditions.over is not None:
        words.append(f"input_tokens over {conditions.over}")
    if conditions.up_to is not None:
        words.append(f"input_tokens up to {conditions.up_to}")
    return ", ".join(words)


def unit_words(unit: str) -> str:
    """`per_million_tokens` as "per million tokens"."""
    return unit.replace("_", " ")


def _sums(record: Mapping[str, object], items: tuple[LineItem, ...]) -> Iterator[str]:
    """Whether the bill adds up, worked out again from its lines."""
    total = sum((item.amount for item in items if item.amount is not None), Decimal(0))
    if total != Decimal(str(record["total"])):
        yield f"the lines add up to {format_decimal(total)}, the record says {record['total']}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
