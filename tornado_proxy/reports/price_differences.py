"""Compared prices of a public list as rows for people, spreadsheets and programs.  Pure."""

from __future__ import annotations

from tornado_proxy.ledger.rows import format_decimal
from tornado_proxy.pricing.lists.comparison import ComparedPrice
from tornado_proxy.reports.model_prices import describe_conditions

#: Members of a row, in the order in which they are printed.
COLUMNS = (
    *("provider", "model", "meter", "when", "finding", "ours", "theirs", "unit"),
    *("our_source", "our_checked", "why"),
)


def difference_members(compared: ComparedPrice) -> dict[str, str | None]:
    """Return a compared price as the values of COLUMNS.  Prices are in the list's unit."""
    listed, card = compared.listed, compared.entry.card if compared.entry is not None else None
    phrases = [f"{name} {value}" for name, value in listed.terms.pairs()]
    if listed.over is not None:
        phrases.append(f"input_tokens over {listed.over}")
    # normalize(): 2.50 and 2.5 are one price, and would look like a difference.
    ours = compared.our_price
    return {
        "provider": compared.listed_model.provider,
        "model": compared.listed_model.name,
        "meter": listed.meter.value,
        "when": ", ".join(phrases),
        "finding": compared.finding.value,
        "ours": None if ours is None else format_decimal(ours.normalize()),
        "theirs": format_decimal(listed.price.normalize()),
        "unit": listed.unit,
        "our_source": None if card is None else card.source,
        "our_checked": None if card is None else card.checked,
        "why": compared.why or (describe_conditions(card.conditions) if card is not None else ""),
    }
