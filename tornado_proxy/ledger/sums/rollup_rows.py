"""The rows of sums by hour and day: their tables, their amounts, and how records become rows.

    rollups          hour, day             by everything of DIMENSIONS
                     hour_all, day_all     by the same without people: a few rows, however many people there are
    attribute_sums   day                   by one attribute of requests and the key of a row of `rollups`

An amount is three whole numbers, so that databases add it exactly: micro-dollars, the rest in 1e-12 dollars, and the
number of decimals of the text that the record has.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TypeVar

from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.providers.endpoint_template import fold_ids

#: The columns that sums are kept by, beside span and start.
DIMENSIONS = (
    "project_id",
    "room",
    "participant",
    "user",
    "issuer",
    "provider",
    "model",
    "endpoint",
    "provider_key",
    "labels",
    "basis",
)

#: The dimensions that say who made a request; the spans `hour_all` and `day_all` do not have them.
PEOPLE = ("room", "participant", "user", "issuer")

#: The bases of requests without a known cost.
UNKNOWN_COSTS = (Basis.UNSETTLED, Basis.PENDING)

# A text of its own: CPython 3.11 takes as long for an attribute of an enumeration as for a call.
_PENDING = Basis.PENDING.value

#: The condition of the sums by day of such requests, which an index has.
OF_UNKNOWN_COST = f"span = 'day' AND basis IN ({', '.join(repr(basis.value) for basis in UNKNOWN_COSTS)})"

#: The columns of records with sums by day of their own, in `attribute_sums`.
ATTRIBUTES = ("session", "agent_session", "agent", "turn", "client", "repository", "end_user")

#: The annotations of a request, as their JSON text: another attribute with sums by day.
ANNOTATIONS = "annotations"

#: The value of annotations that are longer than a key of an index may be, in bytes.
LONG_ANNOTATIONS, _MAX_VALUE_BYTES = "\x01", 1000

#: The columns of a record from which its sums are made, in the order of make_rows() and item_rows.make_item_rows().
RECORD_COLUMNS = (*DIMENSIONS, "subtotal", "surcharge", *ATTRIBUTES, ANNOTATIONS, "seq", "line_items")

#: The columns of the sums.
SUMS = (
    "requests",
    "subtotal_micro",
    "subtotal_rest",
    "subtotal_places",
    "surcharge_micro",
    "surcharge_rest",
    "surcharge_places",
)

#: The end of the names of the spans without people.
ALL_PEOPLE = "_all"

#: The lengths of time, with the characters of a time that name one and the text that completes them to its start.
SPANS: Mapping[str, tuple[int, str]] = {"hour": (13, ":00:00.000Z"), "day": (10, "T00:00:00.000Z")}

#: Decimals of an amount, and the parts of a micro-dollar that they count.
REST_PLACES = 12
MICRO = 10**6

#: The column of sums by hour and people that has the numbers of their records, with commas between them, so that a list
#: of a few requests reads these alone.  It is NULL if it would be longer than this, and counts only if it has as many
#: numbers as the sum has requests: an earlier version adds none.
SEQS, MAX_SEQS_CHARACTERS = "seqs", 900

COLUMNS = ("span", "start", "key", *DIMENSIONS, *SUMS, SEQS)
ATTRIBUTE_COLUMNS = ("name", "start", "value", "key", *SUMS)


ROLLUPS_INDEX = f"CREATE INDEX IF NOT EXISTS rollups_unknown_cost ON rollups (basis, key) WHERE {OF_UNKNOWN_COST};"


def create_rollups(sql: Dialect) -> str:
    """Return SQL of the table."""
    texts = ", ".join(f'"{name}" {sql.text}' for name in DIMENSIONS)
    numbers = ", ".join(f"{name} {sql.big_number} NOT NULL" for name in SUMS)
    return f"""
CREATE TABLE rollups (
    span {sql.text} NOT NULL,
    start {sql.text} NOT NULL,
    key {sql.text} NOT NULL,
    {texts},
    {numbers},
    {SEQS} {sql.text},
    PRIMARY KEY (span, start, key)
) {sql.keyed_table_end};
CREATE INDEX IF NOT EXISTS records_pending_time ON records (started_at, request_id, seq) WHERE basis = 'pending';
{ROLLUPS_INDEX}
"""


def create_attribute_sums(sql: Dialect) -> str:
    """Return SQL of the table of sums by one attribute."""
    numbers = ", ".join(f"{name} {sql.big_number} NOT NULL" for name in SUMS)
    return f"""
CREATE TABLE attribute_sums (
    name {sql.text} NOT NULL,
    start {sql.text} NOT NULL,
    value {sql.text} NOT NULL,
    key {sql.text} NOT NULL,
    {numbers},
    PRIMARY KEY (name, start, value, key)
) {sql.keyed_table_end};
"""


_At = TypeVar("_At")

#: The values of SUMS of some records.  The rests are added as they are: the databases carry nothing either.
_Sum = tuple[int, int, int, int, int, int, int]


def _add(sums: dict[_At, _Sum], at: _At, new: _Sum) -> None:
    """Add a sum.  Tuples, because most sums of a batch are of one record, and an object takes three times as long."""
    old = sums.get(at)
    if old is not None:
        requests, micro, rest, places, micro_2, rest_2, places_2 = new
        new = (
            old[0] + requests,
            old[1] + micro,
            old[2] + rest,
            places if places > old[3] else old[3],  # max() takes three times as long
            old[4] + micro_2,
            old[5] + rest_2,
            places_2 if places_2 > old[6] else old[6],
        )
    sums[at] = new


@dataclass(frozen=True, slots=True)
class _Key:
    """The values of DIMENSIONS, as sums have them, and their key; the same without people."""

    values: tuple[object, ...]
    key: str
    shared: tuple[object, ...]
    shared_key: str


#: The hour of a record, its key, and its key without people.
RecordKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class SumRows:
    """Rows that add records to the sums, one for each key.

    sums: rows of COLUMNS, for the spans with people.
    all_people: the same for the spans without people.
    attributes: rows of ATTRIBUTE_COLUMNS.
    annotations: the same for the annotations.
    keys: the key of each record; None for one that is left out.
    """

    sums: list[tuple[object, ...]]
    all_people: list[tuple[object, ...]]
    attributes: list[tuple[object, ...]]
    annotations: list[tuple[object, ...]]
    keys: list[RecordKey | None]


#: Sums by hour and key.
_Hours = Mapping[tuple[str, str], _Sum]

#: The places in a record of its subtotal, and of its attributes and annotations.
_FIRST_AMOUNT = 2 + len(DIMENSIONS)
_STATED = slice(_FIRST_AMOUNT + 2, _FIRST_AMOUNT + 2 + len(ATTRIBUTES) + 1)
_STATED_NAMES = (*ATTRIBUTES, ANNOTATIONS)


def make_rows(records: Iterable[Sequence[object]]) -> SumRows:
    """Return the rows of records: seq, start and RECORD_COLUMNS of each.  Pending records are left out."""
    hours: dict[tuple[str, str], _Sum] = {}
    seqs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    attributes: dict[tuple[str, str, str, str], _Sum] = {}
    made: dict[str, _Key] = {}
    keys: list[RecordKey | None] = []
    for record in records:
        dimensions = tuple(record[2:_FIRST_AMOUNT])
        if dimensions[-1] == _PENDING:
            keys.append(None)
            continue
        each = _make_key(dimensions)
        hour = str(record[1])[:13]
        made[each.key] = each
        keys.append((hour, each.key, each.shared_key))
        subtotal, places = read_amount(str(record[_FIRST_AMOUNT]))
        surcharge, places_2 = read_amount(str(record[_FIRST_AMOUNT + 1]))
        total = (1, *divmod(subtotal, MICRO), places, *divmod(surcharge, MICRO), places_2)
        at = (hour, each.key)
        _add(hours, at, total)
        seqs[at].append(str(record[-2]))
        stated = record[_STATED]
        if any(stated):
            for name, value in zip(_STATED_NAMES, stated, strict=True):
                if value is not None:
                    _add(attributes, (name, hour[:10], str(value), each.key), total)
    rows = _make_attribute_rows(attributes)
    return SumRows(
        _make_span_rows(hours, {key: each.values for key, each in made.items()}, "", seqs),
        _make_shared_rows(hours, made),
        [row for row in rows if row[0] != ANNOTATIONS],
        [row for row in rows if row[0] == ANNOTATIONS],
        keys,
    )


def _make_shared_rows(hours: _Hours, made: Mapping[str, _Key]) -> list[tuple[object, ...]]:
    """Return the rows without people."""
    everyone: dict[tuple[str, str], _Sum] = {}
    for (hour, key), total in hours.items():
        _add(everyone, (hour, made[key].shared_key), total)
    return _make_span_rows(everyone, {each.shared_key: each.shared for each in made.values()}, ALL_PEOPLE, {})


def _make_attribute_rows(sums: Mapping[tuple[str, str, str, str], _Sum]) -> list[tuple[object, ...]]:
    added: dict[tuple[str, str, str, str], _Sum] = {}
    for (name, day, value, key), total in sums.items():
        is_long = name == ANNOTATIONS and len(value.encode("utf-8", "surrogatepass")) > _MAX_VALUE_BYTES
        _add(added, (name, day, LONG_ANNOTATIONS if is_long else value, key), total)
    suffix = SPANS["day"][1]
    return [(name, day + suffix, value, key, *total) for (name, day, value, key), total in added.items()]


def _make_span_rows(
    hours: _Hours, values: Mapping[str, tuple[object, ...]], kind: str, seqs: Mapping[tuple[str, str], list[str]]
) -> list[tuple[object, ...]]:
    """Return the rows of each span; `kind` is the end of the names of the spans, `seqs` has SEQS of those by hour."""
    days: dict[tuple[str, str], _Sum] = {}
    for (hour, key), total in hours.items():
        _add(days, (hour[:10], key), total)
    rows: list[tuple[object, ...]] = []
    for span, sums, numbers in (("hour", hours, seqs), ("day", days, {})):
        name, suffix = span + kind, SPANS[span][1]
        rows += [
            (name, at[0] + suffix, at[1], *values[at[1]], *sums[at], _join_seqs(numbers.get(at, ()))) for at in sums
        ]
    return rows


def _join_seqs(seqs: Iterable[str]) -> str | None:
    """Return SEQS of some records."""
    text = ",".join(seqs)
    return text if 0 < len(text) <= MAX_SEQS_CHARACTERS else None


@lru_cache(maxsize=8192)  # few combinations, each in many records; some 10 MB
def _make_key(dimensions: tuple[object, ...]) -> _Key:
    """Return the key of dimensions, without ids of endpoints."""
    named = list(zip(DIMENSIONS, dimensions, strict=True))
    values = tuple(fold_ids(str(value)) if name == "endpoint" else value for name, value in named)
    shared = tuple(None if name in PEOPLE else value for name, value in zip(DIMENSIONS, values, strict=True))
    return _Key(values, _hash(values), shared, _hash(shared))


def _hash(values: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def read_amount(text: str) -> tuple[int, int]:
    """Return an amount of decimal text in 1e-12 dollars, and its number of decimals.

    Raises:
        ValueError: it has more than 12 decimals.
    """
    if "E" in text:
        text = f"{Decimal(text):f}"
    whole, _, decimals = text.partition(".")
    places = len(decimals)
    if places > REST_PLACES:
        raise ValueError(f"{text} has {places} decimals; sums have {REST_PLACES}")
    return int(whole + decimals) * _SCALES[places], places


_SCALES = [10 ** (REST_PLACES - places) for places in range(REST_PLACES + 1)]


def split_amount(amount: Decimal) -> tuple[int, int, int]:
    """Return an amount as micro-dollars, the rest in 1e-12 dollars, and its number of decimals.

    Raises:
        ValueError: it has more than 12 decimals.
    """
    digits, places = read_amount(f"{amount:f}")
    return *divmod(digits, MICRO), places


def join_amount(micro: int, rest: int, places: int) -> Decimal:
    """Return the amount of a sum, with as many decimals as the sum of its texts has."""
    digits = micro * MICRO + rest
    return Decimal(digits // 10 ** (REST_PLACES - places)).scaleb(-places)
