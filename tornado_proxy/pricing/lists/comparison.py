"""Compares our prices with those of a public list: equal, different, missing here, or of a new model.

Prices are compared as charges: 0.006 per minute equals 0.36 per hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase

from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.terms import DEFAULTED_TERMS
from tornado_proxy.domain.usage import Meter
from tornado_proxy.pricing.book.price import UNITS, ModelPrice
from tornado_proxy.pricing.book.price_book import PriceBook
from tornado_proxy.pricing.book.rerate import Entry, find_entry
from tornado_proxy.pricing.lists.price_list import ListedModel, ListedPrice


class Finding(StrEnum):
    """The result of comparing one price."""

    SAME = "same"
    DIFFERS = "differs"
    MISSING = "missing"
    OTHER_TERMS = "on other terms"
    NEW_MODEL = "new model"


@dataclass(frozen=True, slots=True)
class ComparedPrice:
    """One listed price and our entry for it.  If `entry` is None, `why` gives the reason."""

    listed_model: ListedModel
    listed: ListedPrice
    finding: Finding
    entry: Entry | None = None
    why: str = ""

    @property
    def our_price(self) -> Decimal | None:
        """Our price in the list's unit, None if we have none."""
        if self.entry is None:
            return None
        return self.entry.unit_price * UNITS[self.listed.unit] / UNITS[self.entry.card.unit]


def compare(book: PriceBook, models: Iterable[ListedModel], at: datetime) -> list[ComparedPrice]:
    """Return each listed price with ours at `at`, in the order of the list.

    A price that the list repeats under several names of one model is returned once.
    """
    results: list[ComparedPrice] = []
    seen: set[object] = set()
    for model in models:
        for listed in model.prices:
            compared = _compare(book, model, listed, at)
            name = compared.entry.model.name if compared.entry is not None else model.name
            key = (model.provider, name, compared.listed, compared.finding)
            if key not in seen:
                seen.add(key)
                results.append(compared)
    return results


def select(
    prices: Iterable[ComparedPrice], findings: Collection[Finding], patterns: Sequence[str]
) -> list[ComparedPrice]:
    """Return the prices with one of `findings`, of models that match one of `patterns` (* matches any text).

    No pattern matches every model.
    """
    return [
        price
        for price in prices
        if price.finding in findings
        and (not patterns or any(fnmatchcase(price.listed_model.name, pattern) for pattern in patterns))
    ]


def _compare(book: PriceBook, model: ListedModel, listed: ListedPrice, at: datetime) -> ComparedPrice:
    our_model = book.resolve(model.provider, model.name)
    if our_model is None:
        return ComparedPrice(model, listed, Finding.NEW_MODEL)
    listed = _specify_output_meter(model, listed, our_model)
    context_tokens = 0 if listed.over is None else listed.over + 1
    # An empty line item lets the comparison use the lookup that rates bills, so that both choose the same card.
    item = LineItem(
        type=listed.meter.value,
        quantity=Decimal(0),
        unit="",
        unit_price=None,
        amount=None,
        model=model.name,
        terms=listed.terms.pairs(),
        context_tokens=context_tokens,
    )
    found = find_entry(book, model.provider, item, at)
    if found.entry is None:
        finding = Finding.OTHER_TERMS if _is_split(our_model, listed) else Finding.MISSING
        return ComparedPrice(model, listed, finding, why=found.fault)
    compared = ComparedPrice(model, listed, Finding.SAME, found.entry)
    assert compared.our_price is not None
    differs = abs(compared.our_price - listed.price) > listed.rounding
    return replace(compared, finding=Finding.DIFFERS) if differs else compared


def _specify_output_meter(model: ListedModel, listed: ListedPrice, our_model: ModelPrice) -> ListedPrice:
    """Return `listed` with the meter of image or audio tokens, if all output of the model is of that kind.

    The lists give such a model a price of output tokens without saying that they are not text.
    """
    if listed.meter is not Meter.OUTPUT or Meter.OUTPUT in our_model.by_meter:
        return listed
    listed_meters = {price.meter for price in model.prices}
    output_meters = [meter for meter in (Meter.OUTPUT_IMAGE, Meter.OUTPUT_AUDIO) if meter in our_model.by_meter]
    if len(output_meters) != 1 or output_meters[0] in listed_meters:
        return listed
    return replace(listed, meter=output_meters[0])


def _is_split(our_model: ModelPrice, listed: ListedPrice) -> bool:
    """Return True if our price depends on a term that the list does not distinguish, such as the kind of a tool."""
    distinguished = {*DEFAULTED_TERMS, *dict(listed.terms.pairs())}
    cards = our_model.by_meter.get(listed.meter, ())
    return any(name not in distinguished for card in cards for name, _ in card.conditions.accepted)
