"""Our prices beside those of a public list: what differs, what the list has and we do not, which models are new.

Prices are compared as charges: 0.006 per minute and 0.36 per hour are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.terms import DEFAULTED_TERMS
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import UNITS, ModelPrice
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import Entry, find_entry
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice


class Finding(StrEnum):
    """What a comparison of one price came to."""

    SAME = "same"
    DIFFERS = "differs"
    MISSING = "missing"
    OTHER_TERMS = "on other terms"
    NEW_MODEL = "new model"


@dataclass(frozen=True, slots=True)
class Compared:
    """One listed price and our entry for it, None where there is none; `why` says why there is none."""

    listed_model: ListedModel
    listed: ListedPrice
    finding: Finding
    entry: Entry | None = None
    why: str = ""

    @property
    def ours(self) -> Decimal | None:
        """Our price for the list's unit."""
        if self.entry is None:
            return None
        return self.entry.unit_price * UNITS[self.listed.unit] / UNITS[self.entry.card.unit]


def compare(book: PriceBook, models: Iterable[ListedModel], at: datetime) -> list[Compared]:
    """Each listed price beside ours at `at`, in the order of the list; what two names of a model share comes once."""
    found: list[Compared] = []
    seen: set[object] = set()
    for model in models:
        for listed in model.prices:
            one = _compare(book, model, listed, at)
            name = one.entry.model.name if one.entry is not None else model.name
            key = (model.provider, name, one.listed, one.finding)
            if key not in seen:
                seen.add(key)
                found.append(one)
    return found


def _compare(book: PriceBook, model: ListedModel, listed: ListedPrice, at: datetime) -> Compared:
    ours = book.resolve(model.provider, model.name)
    if ours is None:
        return Compared(model, listed, Finding.NEW_MODEL)
    listed = _by_kind_of_output(model, listed, ours)
    context = 0 if listed.over is None else listed.over + 1
    nothing = Decimal(0)
    item = LineItem(listed.meter.value, nothing, "", None, None, model.name, None, listed.terms, context)
    found = find_entry(book, model.provider, item, at)
    if found.entry is None:
        finding = Finding.OTHER_TERMS if _is_split(ours, listed) else Finding.MISSING
        return Compared(model, listed, finding, why=found.fault)
    one = Compared(model, listed, Finding.SAME, found.entry)
    assert one.ours is not None
    differs = abs(one.ours - listed.price) > listed.rounding
    return replace(one, finding=Finding.DIFFERS) if differs else one


def _by_kind_of_output(model: ListedModel, listed: ListedPrice, ours: ModelPrice) -> ListedPrice:
    """The price of all output of a model that makes images or speech alone is that of image or audio tokens."""
    if listed.meter is not Meter.OUTPUT or Meter.OUTPUT in ours.by_meter:
        return listed
    stated = {one.meter for one in model.prices}
    made = [meter for meter in (Meter.OUTPUT_IMAGE, Meter.OUTPUT_AUDIO) if meter in ours.by_meter]
    return replace(listed, meter=made[0]) if len(made) == 1 and made[0] not in stated else listed


def _is_split(ours: ModelPrice, listed: ListedPrice) -> bool:
    """Whether we price the meter by a term that the list does not tell apart, such as the kind of a tool."""
    told = {*DEFAULTED_TERMS, *dict(listed.terms)}
    cards = ours.by_meter.get(listed.meter, ())
    return any(name not in told for card in cards for name, _ in card.conditions.accepted)
