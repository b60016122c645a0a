"""An explanation as text for a terminal: plain lines, figures in columns, nothing that a client wrote can run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.book.rerate import Entry
from tornado_proxy.reports.explanation import Explanation, Line, conditions_words, unit_words

#: What a bill without lines means, where it does not mean that nothing was charged.
_NOTHING: Mapping[str, str] = {
    Basis.PENDING: "Nothing is charged yet: the provider reports the usage later.",
    Basis.UNSETTLED: "What it cost is not known: the provider may have charged it.",
}

#: Decimals of an amount, in USD.
_PLACES = 12


def as_text(explanation: Explanation) -> str:
    """The whole bill."""
    lines = [*_head(explanation), "", *_usage(explanation), "", *_bill(explanation)]
    notes = [
        *(f"fault: {fault}" for fault in explanation.faults),
        *(f"warning: {warning}" for warning in explanation.warnings),
    ]
    if notes:
        lines += ["", *notes]
    return "".join(f"{_printable(line)}\n" for line in lines)


def _head(explanation: Explanation) -> Iterator[str]:
    record = explanation.record
    who = [f"{name} {record[name]}" for name in ("participant", "user", "room", "session") if record[name]]
    asked = record["model_requested"]
    model = record["model"] or asked or "none"
    if asked and asked != model:
        model += f" (asked for: {asked})"
    basis = f"{record['basis']}: {explanation.basis_words}"
    if record["estimate_method"]:
        basis += f" (method: {record['estimate_method']})"
    yield f"request   {record['request_id']}"
    yield f"time      {record['started_at']}, {_took(explanation)}"
    yield f"caller    project {record['project_id']}{''.join(f', {one}' for one in who)}"
    yield f"call      {record['method']} {record['provider']} {record['endpoint']}"
    yield f"model     {model}"
    yield f"outcome   {record['outcome']}, status {record['status'] if record['status'] is not None else 'none'}"
    yield f"basis     {basis}"


def _took(explanation: Explanation) -> str:
    record = explanation.record
    if record["outcome"] == Outcome.CRASHED:
        return "its end is not known"
    took = datetime.fromisoformat(record["ended_at"]) - datetime.fromisoformat(record["started_at"])
    return f"{took.total_seconds():.1f} s"


def _usage(explanation: Explanation) -> Iterator[str]:
    if explanation.usage is None:
        yield "The provider sent no usage."
        return
    yield "Usage as the provider sent it:"
    for line in json.dumps(explanation.usage, indent=2).splitlines():
        yield f"  {line}"


def _bill(explanation: Explanation) -> Iterator[str]:
    if not explanation.lines:
        yield _NOTHING.get(explanation.record["basis"], "Nothing was charged.")
        yield f"total {explanation.record['total']} USD"
        return
    rows = [_figures(line.item) for line in explanation.lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for line, (kind, quantity, price, amount) in zip(explanation.lines, rows, strict=True):
        yield f"{kind:<{widths[0]}}  {quantity:>{widths[1]}} x {price:<{widths[2]}} = {amount:>{widths[3]}}"
        yield from (f"    {words}" for words in _price(line))
    yield from _totals(explanation)


def _figures(item: LineItem) -> tuple[str, str, str, str]:
    price = "no price" if item.unit_price is None else f"{format_decimal(item.unit_price)} {unit_words(item.unit)}"
    amount = "not charged" if item.amount is None else f"{item.amount:.{_PLACES}f}"
    return item.type, format_decimal(item.quantity), price, amount


def _price(line: Line) -> Iterator[str]:
    """Where the line's price comes from."""
    item, entry = line.item, line.entry
    if item.terms or item.context_tokens:
        terms = [f"{name} {word}" for name, word in item.terms]
        context = [f"{item.context_tokens} input tokens in all"] if item.context_tokens else []
        yield f"on: {', '.join(terms + context)}"
    if entry is not None:
        yield from _entry(entry)
    elif item.price_hash is not None:
        yield f"price: entry {item.price_hash}, which today's price files do not have"
    if not line.exact:
        yield "the amount is a sum of several requests, each rounded by itself"


def _entry(entry: Entry) -> Iterator[str]:
    card = entry.card
    when = conditions_words(card.conditions)
    dates = [
        f"{word} {moment:%Y-%m-%d}"
        for word, moment in (("from", card.effective_from), ("until", card.effective_until))
        if moment is not None
    ]
    holds = ", ".join([*([when] if when else []), *dates])
    yield f"price: {entry.model.name}{f' ({holds})' if holds else ''}, entry {entry.price_hash}"
    for modifier in entry.modifiers:
        base, factor = format_decimal(card.prices[entry.meter]), format_decimal(modifier.factor)
        yield f"{base} x {factor}: {modifier.name} ({conditions_words(modifier.conditions)})"
    yield f"source: {card.source}; checked {card.checked}"


def _totals(explanation: Explanation) -> Iterator[str]:
    record = explanation.record
    subtotal, surcharge, total = (Decimal(record[name]) for name in ("subtotal", "surcharge", "total"))
    rate = explanation.surcharge_rate
    figures = [("subtotal", subtotal), (f"surcharge, {rate} of the subtotal", surcharge), ("total USD", total)]
    shown = [(words, f"{amount:.{_PLACES}f}") for words, amount in figures]
    left, right = (max(len(row[column]) for row in shown) for column in (0, 1))
    yield ""
    for words, amount in shown:
        yield f"{words:<{left}}  {amount:>{right}}"


def _printable(line: str) -> str:
    """Without control characters: names come from clients."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
