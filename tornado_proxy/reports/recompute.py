"""Rates ledger records at today's prices and compares the result with the amounts billed.  Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import DERIVED_ITEMS, Cost, LineItem
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import format_decimal, read_line_items
from tornado_proxy.pricing.book.price_book import PriceBook, Tariff
from tornado_proxy.pricing.book.rerate import rerate
from tornado_proxy.reports.model_prices import describe_unit
from tornado_proxy.reports.reparse_usage import reparse_usage

#: Members of a recomputed record, in the order in which they are printed.
COLUMNS = (
    "request_id",
    "project_id",
    "started_at",
    "provider",
    "model",
    "basis",
    "billed",
    "today",
    "difference",
    "why",
)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The billed amount and today's, in USD.

    `today` is None if today's price files cannot rate the whole record.  `reasons` explain the difference.
    """

    record: Mapping[str, object]
    billed: Decimal
    today: Decimal | None
    reasons: tuple[str, ...]

    @property
    def difference(self) -> Decimal | None:
        """The amount that would be billed in addition today; None if today's amount is not known."""
        return None if self.today is None else self.today - self.billed

    @property
    def differs(self) -> bool:
        """True if the amount or the price entries have changed."""
        return self.difference != 0 or bool(self.reasons)

    def members(self) -> dict[str, str | None]:
        """Return the values of COLUMNS as text."""
        record = self.record
        amounts = {"billed": self.billed, "today": self.today, "difference": self.difference}
        values = {
            **{name: record[name] for name in COLUMNS if name in record},
            "model": record["model"] or record["model_requested"],
            **{name: None if amount is None else format_decimal(amount) for name, amount in amounts.items()},
            "why": "; ".join(self.reasons),
        }
        return {name: None if values[name] is None else str(values[name]) for name in COLUMNS}


@dataclass(slots=True)
class Totals:
    """Sums over recomputed records, and the difference of each project.

    A record that cannot be rated today counts with its billed amount, so that it adds no difference.
    """

    records: int = 0
    differing: int = 0
    unrated: int = 0
    pending: int = 0
    billed: Decimal = Decimal(0)
    today: Decimal = Decimal(0)
    by_project: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def add(self, result: Recomputed) -> None:
        """Add a record to the sums."""
        self.records += 1
        self.differing += result.difference not in (None, 0)
        self.unrated += result.today is None
        self.pending += result.record["basis"] == Basis.PENDING
        self.billed += result.billed
        self.today += result.billed if result.today is None else result.today
        self.by_project[str(result.record["project_id"])] += result.difference or Decimal(0)


def recompute_records(
    records: Iterable[Mapping[str, object]], book: PriceBook, surcharge_rate: Decimal, totals: Totals
) -> Iterator[Recomputed]:
    """Yield each record at today's prices and add it to `totals`.  Lazy: a ledger does not fit into memory."""
    for record in records:
        result = recompute_record(record, book, surcharge_rate)
        totals.add(result)
        yield result


def recompute_record(record: Mapping[str, object], book: PriceBook, surcharge_rate: Decimal) -> Recomputed:
    """Return a record, which must have all its columns, at today's prices.

    `surcharge_rate` is used for records without a surcharge of their own.
    """
    billed = Decimal(str(record["total"]))
    text = record["line_items"]
    items = read_line_items(text if isinstance(text, str) else None)
    if not items:
        return _recompute_without_items(record, billed, book, surcharge_rate)
    started_at = datetime.fromisoformat(str(record["started_at"]))
    cost = rerate(book, str(record["provider"]), items, started_at, surcharge_rate=surcharge_rate)
    # A partial sum would look like a discount.
    today = None if cost.faults else cost.total
    return Recomputed(record, billed, today, tuple(dict.fromkeys((*cost.faults, *_describe_changes(items, cost)))))


def _recompute_without_items(
    record: Mapping[str, object], billed: Decimal, book: PriceBook, surcharge_rate: Decimal
) -> Recomputed:
    """Return a record that is free, pending or was never rated; for the last case, parse its stored usage again."""
    # Free and pending records have no line items on purpose.
    if record["basis"] != Basis.UNSETTLED:
        return Recomputed(record, billed, billed, ())
    report = reparse_usage(record)
    if report is None:
        faults = json.loads(str(record["faults"] or "[]"))
        return Recomputed(record, billed, None, (f"its usage is not known{f' ({faults[0]})' if faults else ''}",))
    requested = record["model_requested"]
    started_at = datetime.fromisoformat(str(record["started_at"]))
    # The record stores the region of the provider's host in its line items only, and it has none.
    tariff = Tariff(book, str(record["provider"]), surcharge_rate)
    cost = tariff.charge(report, requested if isinstance(requested, str) else None, started_at).cost
    reasons = ("it was not rated; rated now from the provider's usage", *cost.faults)
    return Recomputed(record, billed, None if cost.faults else cost.total, reasons)


def _describe_changes(items: tuple[LineItem, ...], cost: Cost) -> Iterator[str]:
    billed_items = [item for item in items if item.type not in DERIVED_ITEMS]
    # rerate() keeps the order of the items and appends discount and surcharge, so that the pairs match.
    for old, new in zip(billed_items, cost.line_items, strict=False):
        if new.unit_price is None or (old.unit, old.unit_price) == (new.unit, new.unit_price):
            continue
        old_price = "no price"
        if old.unit_price is not None:
            old_price = f"{format_decimal(old.unit_price)} {describe_unit(old.unit)}"
        new_price = f"{format_decimal(new.unit_price)} {describe_unit(new.unit)}"
        yield f"{old.type} of {old.model}: {old_price}, today {new_price}"
