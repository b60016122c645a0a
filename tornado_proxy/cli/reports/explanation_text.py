"""An explanation as text for a terminal: plain lines, figures in columns, and no control characters of clients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime

from tornado_proxy.cli.tables import replace_unprintable
from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.rerate import Entry
from tornado_proxy.reports.explanation import ExplainedItem, Explanation
from tornado_proxy.reports.model_prices import describe_conditions, describe_dates, describe_unit

#: The text of a bill without line items.  Any other basis means that nothing was charged.
_EMPTY_BILLS: Mapping[str, str] = {
    Basis.PENDING: "Nothing is charged yet: the provider reports the usage later.",
    Basis.UNSETTLED: "The cost is not known: the provider may have charged it.",
}

#: Decimals of an amount in USD: line items are rounded to 1e-12.
_DECIMALS = 12


def format_explanation(explanation: Explanation) -> str:
    """Return the whole bill as lines."""
    lines = [*_request_lines(explanation), "", *_usage_lines(explanation), "", *_bill_lines(explanation)]
    notes = [
        *(f"fault: {fault}" for fault in explanation.faults),
        *(f"warning: {warning}" for warning in explanation.warnings),
    ]
    if notes:
        lines += ["", *notes]
    return "".join(f"{replace_unprintable(line)}\n" for line in lines)


def _request_lines(explanation: Explanation) -> Iterator[str]:
    record = explanation.record
    callers = [
        f", {name} {record[name]}" for name in ("participant", "user", "issuer", "room", "session") if record[name]
    ]
    requested = record["model_requested"]
    model = record["model"] or requested or "none"
    if requested and requested != model:
        model += f" (requested: {requested})"
    basis = f"{record['basis']}: {explanation.basis_text}"
    if record["estimate_method"]:
        basis += f" (method: {record['estimate_method']})"
    yield f"request   {record['request_id']}"
    yield f"time      {record['started_at']}, {_format_duration(explanation)}"
    yield f"caller    project {record['project_id']}{''.join(callers)}"
    yield from _attribution_lines(record)
    yield f"endpoint  {record['method']} {record['provider']} {record['endpoint']}"
    yield f"model     {model}"
    yield from _retry_lines(record)
    yield f"outcome   {record['outcome']}, status {record['status'] if record['status'] is not None else 'none'}"
    yield f"basis     {basis}"


def _attribution_lines(record: Mapping[str, object]) -> Iterator[str]:
    """Yield a line with the fields that the client has stated, if there are any."""
    stated = [f"{name.replace('_', ' ')} {record[name]}" for name in ATTRIBUTION_FIELDS if record[name]]
    if stated:
        yield f"for       {', '.join(stated)}"


def _retry_lines(record: Mapping[str, object]) -> Iterator[str]:
    """Yield a line if the request repeats an earlier one."""
    if record["retry_of"]:
        yield f"repeats   {record['retry_of']}, by its idempotency key"
    elif record["retry_count"]:
        yield f"repeats   an earlier request: retry {record['retry_count']} of the client"


def _format_duration(explanation: Explanation) -> str:
    record = explanation.record
    # A crashed request ends when the next process starts and finds its intent: the difference means nothing.
    if record["outcome"] == Outcome.CRASHED:
        return "its end is not known"
    duration = datetime.fromisoformat(record["ended_at"]) - datetime.fromisoformat(record["started_at"])
    return f"{duration.total_seconds():.1f} s"


def _usage_lines(explanation: Explanation) -> Iterator[str]:
    if explanation.usage is None:
        yield "The provider sent no usage."
        return
    yield "Usage as the provider sent it:"
    for line in json.dumps(explanation.usage, indent=2).splitlines():
        yield f"  {line}"


def _bill_lines(explanation: Explanation) -> Iterator[str]:
    if not explanation.items:
        yield _EMPTY_BILLS.get(explanation.record["basis"], "Nothing was charged.")
        yield f"total {explanation.record['total']} USD"
        return
    rows = [_format_item(explained.item) for explained in explanation.items]
    # Aligned columns let a reader compare amounts digit by digit.
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for explained, (meter, quantity, price, amount) in zip(explanation.items, rows, strict=True):
        yield f"{meter:<{widths[0]}}  {quantity:>{widths[1]}} x {price:<{widths[2]}} = {amount:>{widths[3]}}"
        yield from (f"    {line}" for line in _price_lines(explained))
    yield from _total_lines(explanation)


def _format_item(item: LineItem) -> tuple[str, str, str, str]:
    price = "no price" if item.unit_price is None else f"{format_decimal(item.unit_price)} {describe_unit(item.unit)}"
    amount = "not charged" if item.amount is None else f"{item.amount:.{_DECIMALS}f}"
    return item.type, format_decimal(item.quantity), price, amount


def _price_lines(explained: ExplainedItem) -> Iterator[str]:
    """Yield the origin of an item's price."""
    item, entry = explained.item, explained.entry
    if item.terms or item.context_tokens:
        terms = [f"{name} {value}" for name, value in item.terms]
        context = [f"{item.context_tokens} input tokens in all"] if item.context_tokens else []
        yield f"on: {', '.join(terms + context)}"
    if entry is not None:
        yield from _entry_lines(entry)
    # The record stores the hash of its entry, not the entry: that is in the price files of its time.
    elif item.price_hash is not None:
        yield f"price: entry {item.price_hash}, which today's price files do not have"
    # Otherwise a reader who multiplies the line would find an error in the last digit.
    if not explained.exact:
        yield "the amount is a sum of several requests, each rounded separately"


def _entry_lines(entry: Entry) -> Iterator[str]:
    card = entry.card
    conditions = describe_conditions(card.conditions)
    validity = ", ".join([*([conditions] if conditions else []), *describe_dates(card)])
    yield f"price: {entry.model.name}{f' ({validity})' if validity else ''}, entry {entry.price_hash}"
    for modifier in entry.modifiers:
        base, factor = format_decimal(card.prices[entry.meter]), format_decimal(modifier.factor)
        yield f"{base} x {factor}: {modifier.name} ({describe_conditions(modifier.conditions)})"
    yield f"source: {card.source}; checked {card.checked}"


def _total_lines(explanation: Explanation) -> Iterator[str]:
    lines = explanation.sums()
    amounts = [f"{amount:.{_DECIMALS}f}" for _, amount in lines]
    title_width, amount_width = max(len(title) for title, _ in lines), max(map(len, amounts))
    yield ""
    for (title, _), amount in zip(lines, amounts, strict=True):
        yield f"{title:<{title_width}}  {amount:>{amount_width}}"
