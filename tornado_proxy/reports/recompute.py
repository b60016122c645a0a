"""One record of the ledger at today's prices, beside what was billed.  Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tornado_proxy.domain.cost import SURCHARGE, Cost, LineItem
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import format_decimal, read_line_items
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import rerate
from tornado_proxy.reports.explanation import unit_words
from tornado_proxy.reports.reparse_usage import read_again


@dataclass(frozen=True, slots=True)
class Recomputed:
    """USD.  `today` is None where today's price files cannot rate all of the record; `reasons` say what differs."""

    record: Mapping[str, object]
    billed: Decimal
    today: Decimal | None
    reasons: tuple[str, ...]

    @property
    def difference(self) -> Decimal | None:
        """What would be billed more today."""
        return None if self.today is None else self.today - self.billed

    @property
    def differs(self) -> bool:
        """Whether there is something to show."""
        return self.difference != 0 or bool(self.reasons)


@dataclass(slots=True)
class Totals:
    """Sums over records.  What cannot be rated today counts with what was billed, so that it makes no difference.

    `by_project` are the differences of each project.
    """

    records: int = 0
    differing: int = 0
    unrated: int = 0
    pending: int = 0
    billed: Decimal = Decimal(0)
    today: Decimal = Decimal(0)
    by_project: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def add(self, one: Recomputed) -> None:
        """Add a record."""
        self.records += 1
        self.differing += one.difference not in (None, 0)
        self.unrated += one.today is None
        self.pending += one.record["basis"] == Basis.PENDING
        self.billed += one.billed
        self.today += one.billed if one.today is None else one.today
        self.by_project[str(one.record["project_id"])] += one.difference or Decimal(0)


def recompute_record(record: Mapping[str, object], book: PriceBook, surcharge_rate: Decimal) -> Recomputed:
    """Rate a record with all its columns again; `surcharge_rate` is for records that have no surcharge of their own."""
    billed = Decimal(str(record["total"]))
    text = record["line_items"]
    items = read_line_items(text if isinstance(text, str) else None)
    if not items:
        return _without_items(record, billed, book, surcharge_rate)
    started_at = datetime.fromisoformat(str(record["started_at"]))
    cost = rerate(book, str(record["provider"]), items, started_at, surcharge_rate=surcharge_rate)
    today = None if cost.faults else cost.total
    return Recomputed(record, billed, today, tuple(dict.fromkeys((*cost.faults, *_changes(items, cost)))))


def _without_items(
    record: Mapping[str, object], billed: Decimal, book: PriceBook, surcharge_rate: Decimal
) -> Recomputed:
    """A record without line items is free or pending, or it was not rated: then its raw usage is read again."""
    if record["basis"] != Basis.UNSETTLED:
        return Recomputed(record, billed, billed, ())
    report = read_again(record)
    if report is None:
        faults = json.loads(str(record["faults"] or "[]"))
        return Recomputed(record, billed, None, (f"its usage is not known{f' ({faults[0]})' if faults else ''}",))
    requested = record["model_requested"]
    cost = book.rate(
        str(record["provider"]),
        report,
        requested_model=requested if isinstance(requested, str) else None,
        at=datetime.fromisoformat(str(record["started_at"])),
        provider_region=None,
        surcharge_rate=surcharge_rate,
    )
    reasons = ("it was not rated; rated now from the usage as the provider sent it", *cost.faults)
    return Recomputed(record, billed, None if cost.faults else cost.total, reasons)


def _changes(items: tuple[LineItem, ...], cost: Cost) -> Iterator[str]:
    before = [item for item in items if item.type != SURCHARGE]
    for old, new in zip(before, cost.line_items, strict=False):
        if new.unit_price is None or (old.unit, old.unit_price) == (new.unit, new.unit_price):
            continue
        was = "no price" if old.unit_price is None else f"{format_decimal(old.unit_price)} {unit_words(old.unit)}"
        yield f"{old.type} of {old.model}: {was}, today {format_decimal(new.unit_price)} {unit_words(new.unit)}"
