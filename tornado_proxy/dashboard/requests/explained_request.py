"""One request as a page shows it: the explanation of its record, with figures for people.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tornado_proxy.dashboard.amounts import count_decimals, show_amount
from tornado_proxy.dashboard.requests.request_list import UNKNOWN_COSTS, show_moment
from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.record import Outcome
from tornado_proxy.ledger.reports.records_query import Record
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.reports.explanation import ExplainedItem, Explanation, explain_record
from tornado_proxy.reports.model_prices import describe_conditions, describe_dates, describe_unit

#: The columns of a line item, for programs.
ITEM_COLUMNS = ("request_id", "type", "model", "quantity", "unit", "unit_price", "amount", "price_hash", "source")

#: The facts of a record, in the order of the page, with their titles.
_FACTS = {
    "request_id": "Request",
    "project_id": "Project",
    "participant": "Participant",
    "user": "User",
    "issuer": "Issuer",
    "room": "Room",
    "session": "Session",
    **{name: name.replace("_", " ").capitalize() for name in ATTRIBUTION_FIELDS},
    "upstream_request_id": "Provider's id",
    "provider_key": "Provider key",
    "retry_of": "Repeats",
    "retry_count": "Retry of the client",
}


@dataclass(frozen=True, slots=True)
class ShownItem:
    """A line item: quantity x price = amount, and where the price comes from."""

    type: str
    model: str
    quantity: str
    price: str
    amount: str
    origin: tuple[str, ...]
    source: str | None


@dataclass(frozen=True, slots=True)
class ExplainedRequest:
    """An explained record, with `record`, all of its columns."""

    record: Record
    explanation: Explanation

    @property
    def members(self) -> dict[str, Any]:
        """The members that `explain --format json` prints."""
        return self.explanation.members()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The titles and values of the facts that the record states."""
        record = self.record
        named = [(title, str(record[name])) for name, title in _FACTS.items() if record[name]]
        return [*named, *self._list_ends(), *self._list_names("labels"), *self._list_names("annotations")]

    def _list_ends(self) -> Iterator[tuple[str, str]]:
        record = self.record
        requested, model = record["model_requested"], record["model"] or record["model_requested"] or "none"
        yield "Endpoint", f"{record['method']} {record['provider']} {record['endpoint']}"
        yield "Model", f"{model} (requested: {requested})" if requested and requested != model else str(model)
        yield "Time", f"{show_moment(record['started_at'])} UTC, {self._describe_duration()}"
        yield "Outcome", f"{record['outcome']}, status {record['status'] or 'none'}"
        method = f" (method: {record['estimate_method']})" if record["estimate_method"] else ""
        yield "Basis", f"{record['basis']}: {self.explanation.basis_text}{method}"

    def _list_names(self, column: str) -> Iterator[tuple[str, str]]:
        names: Mapping[str, str] = json.loads(str(self.record[column] or "{}"))
        title = column.removesuffix("s").capitalize()
        yield from ((f"{title} {name}", value) for name, value in names.items())

    def _describe_duration(self) -> str:
        record = self.record
        # A crashed request ends when the next process finds its intent: the difference means nothing.
        if record["outcome"] == Outcome.CRASHED or not record["ended_at"]:
            return "its end is not known"
        duration = datetime.fromisoformat(str(record["ended_at"])) - datetime.fromisoformat(str(record["started_at"]))
        return f"{duration.total_seconds():.1f} s"

    @property
    def usage(self) -> str | None:
        """The provider's usage as indented JSON, None without one."""
        usage = self.explanation.usage
        return None if usage is None else json.dumps(usage, indent=2, ensure_ascii=False)

    @property
    def items(self) -> list[ShownItem]:
        """The line items except the surcharge."""
        decimals = self._decimals
        return [_show_item(item, decimals) for item in self.explanation.items]

    @property
    def sums(self) -> list[tuple[str, str]]:
        """The titles and amounts of the sums."""
        if self.record["basis"] in UNKNOWN_COSTS:
            return [("Total USD", "not known")]
        decimals = self._decimals
        return [
            (title[0].upper() + title[1:], show_amount(amount, decimals)) for title, amount in self.explanation.sums()
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """The faults of the request and the warnings about its prices."""
        return (*self.explanation.faults, *self.explanation.warnings)

    @property
    def _decimals(self) -> int:
        amounts = [amount for _, amount in self.explanation.sums()]
        items = [item.item.amount for item in self.explanation.items if item.item.amount is not None]
        return count_decimals([*amounts, *items])


def explain(record: Record, prices: PriceBook) -> ExplainedRequest:
    """Return a record with its explanation by today's prices."""
    return ExplainedRequest(record, explain_record(record, prices))


def list_items(explained: ExplainedRequest) -> list[dict[str, object]]:
    """Return the line items, without the surcharge, for programs."""
    rows = [item.members() for item in explained.explanation.items]
    return [
        {
            **{name: row[name] for name in ITEM_COLUMNS if name in row},
            "request_id": explained.record["request_id"],
            "source": (row["price"] or {}).get("source"),
        }
        for row in rows
    ]


def _show_item(explained: ExplainedItem, decimals: int) -> ShownItem:
    item, entry = explained.item, explained.entry
    price = None if item.unit_price is None else f"{format_decimal(item.unit_price)} {describe_unit(item.unit)}"
    return ShownItem(
        type=item.type.replace("_", " "),
        model=item.model or "",
        quantity=f"{item.quantity:,f}",
        price=price or "no price",
        amount="not charged" if item.amount is None else show_amount(item.amount, decimals),
        origin=tuple(_describe_origin(explained)),
        source=None if entry is None else f"{entry.card.source}, checked {entry.card.checked}",
    )


def _describe_origin(explained: ExplainedItem) -> Iterator[str]:
    """Yield the conditions of an item, and the entry of its price."""
    item, entry = explained.item, explained.entry
    yield from (f"{name} {value}" for name, value in item.terms)
    if item.context_tokens:
        yield f"{item.context_tokens:,} input tokens in all"
    if entry is not None:
        validity = [describe_conditions(entry.card.conditions), *describe_dates(entry.card)]
        yield f"price of {entry.model.name}{''.join(f', {text}' for text in validity if text)}"
        yield from (f"times {format_decimal(each.factor)}: {each.name}" for each in entry.modifiers)
    elif item.price_hash is not None:
        yield f"price entry {item.price_hash}, which today's price files do not have"
    if not explained.exact:
        yield "a sum of several requests, each rounded separately"
