"""The rows of sums by kind of line item: their tables, and how the line items of records become rows.

    item_sums     day, day_all, hour_all   by the key of a row of `rollups` and by shape
    item_shapes                            the kinds of line items of a shape, as JSON

The shape of a record is the set of the kinds of its line items.  A row has the sums of up to ITEMS kinds of a shape, in
columns that both databases add up, because a row for each kind would take the writer three times as long; a shape with
more kinds has several rows.  So `requests` of a row is the number of requests that have all kinds of the shape, and no
others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import add

import msgspec

from tornado_proxy.ledger.dialect import Dialect, Values
from tornado_proxy.ledger.sums.rollup_rows import ALL_PEOPLE, MICRO, SPANS, RecordKey, read_amount

#: Kinds of line items in one row.
ITEMS = 4

#: The columns of each kind: its quantity in thousandths and the rest in 1e-12, its amount in micro-dollars and the rest
#: in 1e-12 dollars.  So the sums of the rests of 9,000 million records have 64 bits.
_PER_ITEM = ("quantity", "quantity_rest", "amount", "amount_rest")
FIGURES = tuple(f"{name}_{number}" for number in range(ITEMS) for name in _PER_ITEM)

SUMS = ("requests", *FIGURES)
COLUMNS = ("span", "start", "key", "shape", *SUMS)
SHAPE_COLUMNS = ("shape", "kinds")

#: A thousandth in 1e-12.
MILLI = 10**9

#: One in 1e-12, the unit of figures before they are split.
_SCALE = 10**12

#: Larger figures are not added: sums have 64 bits.
_MAX_QUANTITY, _MAX_AMOUNT = 10**14 * MILLI, 10**14 * MICRO


def create_item_sums(sql: Dialect) -> str:
    """Return SQL of the tables."""
    numbers = ", ".join(f"{name} {sql.big_number}" for name in SUMS)
    return f"""
CREATE TABLE item_sums (
    span {sql.text} NOT NULL,
    start {sql.text} NOT NULL,
    key {sql.text} NOT NULL,
    shape {sql.text} NOT NULL,
    {numbers},
    PRIMARY KEY (span, start, key, shape)
) {sql.keyed_table_end};
CREATE TABLE item_shapes (shape {sql.text} PRIMARY KEY, kinds {sql.text} NOT NULL) {sql.keyed_table_end};
"""


class Item(msgspec.Struct, gc=False):
    """The members of a line item that are summed."""

    type: str
    quantity: str
    amount: str | None = None
    model: str | None = None


decode_items = msgspec.json.Decoder(list[Item]).decode


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of line items: its type, its model if it names one, and whether it has a price."""

    type: str
    model: str | None
    is_priced: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """The kinds of the line items of a record.

    ids: the names of its rows, each with the next ITEMS kinds.
    """

    kinds: tuple[Kind, ...]
    ids: tuple[str, ...]

    def list_rows(self) -> list[Values]:
        """Return the rows of `item_shapes`."""
        members = [[kind.type, kind.model, kind.is_priced] for kind in self.kinds]
        return [(each, json.dumps([number * ITEMS, members])) for number, each in enumerate(self.ids)]


#: The shape of records whose line items cannot be added: they have more than 12 decimals, or cannot be read.
UNKNOWN_SHAPE = Shape((), ("unknown",))


def read_kinds(text: str) -> tuple[int, tuple[Kind, ...]]:
    """Return the index of the first kind that a row has, and all kinds of its shape, from `item_shapes`."""
    first, members = json.loads(text)
    return first, tuple(Kind(*each) for each in members)


@lru_cache(maxsize=4096)  # few combinations, each in many records
def _find_shape(kinds: tuple[tuple[str, str | None, bool], ...]) -> tuple[Shape, tuple[int, ...]]:
    """Return the shape of line items, and the place of the quantity of each in its figures."""
    distinct = sorted(set(kinds), key=lambda kind: (kind[0], kind[1] or "", kind[2]))
    text = json.dumps(distinct).encode()
    parts = max(1, -(-len(distinct) // ITEMS))
    ids = tuple(hashlib.sha256(b"%d %s" % (part, text)).hexdigest()[:16] for part in range(parts))
    places = {kind: 1 + 2 * number for number, kind in enumerate(distinct)}
    return Shape(tuple(Kind(*kind) for kind in distinct), ids), tuple(places[kind] for kind in kinds)


def sum_items(text: str | None) -> tuple[Shape, list[int]]:
    """Return the shape of a record, and its figures: 1, its number of requests, and for each kind two numbers in 1e-12.

    These are the quantity and the amount.
    """
    try:
        items = decode_items(text or "[]")
        shape, places = _find_shape(tuple([(item.type, item.model, item.amount is not None) for item in items]))
        figures = [1] + [0] * (2 * len(shape.kinds))
        for place, item in zip(places, items, strict=True):
            stated = item.quantity
            quantity = int(stated) * _SCALE if stated.isdigit() else read_amount(stated)[0]
            amount = 0 if item.amount is None else read_amount(item.amount)[0]
            if not (-_MAX_QUANTITY < quantity < _MAX_QUANTITY and -_MAX_AMOUNT < amount < _MAX_AMOUNT):
                return UNKNOWN_SHAPE, [1]
            figures[place] += quantity
            figures[place + 1] += amount
    except (ValueError, ArithmeticError, msgspec.DecodeError):
        return UNKNOWN_SHAPE, [1]
    return shape, figures


def _split_figures(figures: list[int]) -> list[int]:
    """Return the number of requests, and the figures of _PER_ITEM for each kind."""
    split = figures[:1]
    for quantity, amount in zip(figures[1::2], figures[2::2], strict=True):
        split += divmod(quantity, MILLI)
        split += divmod(amount, MICRO)
    return split


#: Sums of figures by time, key and the name of a shape.
_Sums = dict[tuple[str, str, str], list[int]]


def _add(sums: _Sums, at: tuple[str, str, str], figures: list[int]) -> None:
    total = sums.get(at)
    sums[at] = figures if total is None else list(map(add, total, figures))


def _make_span_rows(span: str, sums: _Sums, shapes: Mapping[str, Shape]) -> list[Values]:
    """Return rows of COLUMNS."""
    suffix = SPANS[span.removesuffix(ALL_PEOPLE)][1]
    rows: list[Values] = []
    for (time, key, first), (requests, *figures) in sums.items():
        for number, each in enumerate(shapes[first].ids):
            some = figures[number * len(FIGURES) : (number + 1) * len(FIGURES)]
            rows.append((span, time + suffix, key, each, requests, *some, *_EMPTY[len(some) :]))
    return rows


#: The columns of kinds that a row does not have.
_EMPTY = (None,) * len(FIGURES)


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Rows that add line items to the sums: of COLUMNS, and of SHAPE_COLUMNS."""

    sums: list[Values]
    shapes: list[Values]


def make_item_rows(records: Sequence[Sequence[object]], keys: Sequence[RecordKey | None]) -> ItemRows:
    """Return the rows of records, whose last column is their line items.

    Args:
        records: the records.
        keys: the key of each, as rollup_rows.make_rows() returns them; None for one that is left out.
    """
    totals: dict[tuple[RecordKey, str], list[int]] = {}
    shapes: dict[str, Shape] = {}
    for record, named in zip(records, keys, strict=True):
        if named is None:
            continue
        shape, figures = sum_items(None if record[-1] is None else str(record[-1]))
        at = named, shape.ids[0]
        total = totals.get(at)
        if total is None:
            shapes[at[1]] = shape
            totals[at] = figures
        else:
            totals[at] = list(map(add, total, figures))
    return ItemRows(_list_spans(totals, shapes), [row for shape in shapes.values() for row in shape.list_rows()])


def _list_spans(totals: Mapping[tuple[RecordKey, str], list[int]], shapes: Mapping[str, Shape]) -> list[Values]:
    """Return the rows of all spans, from the figures of the records with the same key and the same shape."""
    days: _Sums = {}
    hours_all: _Sums = {}
    days_all: _Sums = {}
    for ((hour, key, shared_key), name), total in totals.items():
        figures = _split_figures(total)
        _add(days, (hour[:10], key, name), figures)
        _add(hours_all, (hour, shared_key, name), figures)
    for (hour, shared_key, name), figures in hours_all.items():
        _add(days_all, (hour[:10], shared_key, name), figures)
    return [
        *_make_span_rows("day", days, shapes),
        *_make_span_rows("hour" + ALL_PEOPLE, hours_all, shapes),
        *_make_span_rows("day" + ALL_PEOPLE, days_all, shapes),
    ]
