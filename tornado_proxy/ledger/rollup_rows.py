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

#: The condition of the sums by day of such requests, which an index has.
OF_UNKNOWN_COST = f"span = 'day' AND basis IN ({', '.join(repr(basis.value) for basis in UNKNOWN_COSTS)})"

#: The columns of records with sums by day of their own, in `attribute_sums`.
ATTRIBUTES = ("session", "agent_session", "agent", "turn", "client", "repository", "end_user")

#: The columns of a record from which its sums are made, in the order of make_rows().
RECORD_COLUMNS = (*DIMENSIONS, "subtotal", "surcharge", *ATTRIBUTES)

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
_SPANS: Mapping[str, tuple[int, str]] = {"hour": (13, ":00:00.000Z"), "day": (10, "T00:00:00.000Z")}

_REST_PLACES = 12
_MICRO = 10**6

COLUMNS = ("span", "start", "key", *DIMENSIONS, *SUMS)
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


class _Sum:
    """A running sum; amounts are whole numbers of 1e-12 dollars, because Decimal takes several times as long."""

    __slots__ = ("requests", "subtotal", "subtotal_places", "surcharge", "surcharge_places")

    def __init__(self) -> None:
        self.requests = self.subtotal = self.subtotal_places = self.surcharge = self.surcharge_places = 0

    def add_request(self, subtotal: tuple[int, int], surcharge: tuple[int, int]) -> None:
        """Add the amounts of one request, as read_amount() returns them."""
        self.requests += 1
        self.subtotal += subtotal[0]
        self.surcharge += surcharge[0]
        self.subtotal_places = max(self.subtotal_places, subtotal[1])
        self.surcharge_places = max(self.surcharge_places, surcharge[1])

    def add(self, other: _Sum) -> None:
        """Add another sum."""
        self.requests += other.requests
        self.subtotal += other.subtotal
        self.surcharge += other.surcharge
        self.subtotal_places = max(self.subtotal_places, other.subtotal_places)
        self.surcharge_places = max(self.surcharge_places, other.surcharge_places)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values of SUMS."""
        return (
            self.requests,
            *divmod(self.subtotal, _MICRO),
            self.subtotal_places,
            *divmod(self.surcharge, _MICRO),
            self.surcharge_places,
        )


@dataclass(frozen=True, slots=True)
class SumRows:
    """Rows that add records to the sums, one for each key.

    sums: rows of COLUMNS, for the spans with people.
    all_people: the same for the spans without people.
    attributes: rows of ATTRIBUTE_COLUMNS.
    """

    sums: list[tuple[object, ...]]
    all_people: list[tuple[object, ...]]
    attributes: list[tuple[object, ...]]


#: Sums by hour and key.
_Hours = defaultdict[tuple[str, str], _Sum]

#: The values of DIMENSIONS, as sums have them, by key.
_Values = dict[str, tuple[object, ...]]

_NUMBER = len(DIMENSIONS)


def make_rows(records: Iterable[Sequence[object]]) -> SumRows:
    """Return the rows of records: seq, start and RECORD_COLUMNS of each.  Pending records are left out."""
    hours: _Hours = defaultdict(_Sum)
    attributes: defaultdict[tuple[str, str, str, str], _Sum] = defaultdict(_Sum)
    folded: _Values = {}
    for _, started_at, *values in records:
        dimensions = tuple(values[:_NUMBER])
        if dimensions[-1] == Basis.PENDING:
            continue
        start, (folded_values, key) = str(started_at), _make_key(dimensions)
        folded[key] = folded_values
        subtotal, surcharge = read_amount(str(values[_NUMBER])), read_amount(str(values[_NUMBER + 1]))
        hours[start[:13], key].add_request(subtotal, surcharge)
        stated = values[_NUMBER + 2 :]
        if any(stated):
            for name, value in zip(ATTRIBUTES, stated, strict=True):
                if value is not None:
                    attributes[name, str(value), start[:10], key].add_request(subtotal, surcharge)
    suffix = _SPANS["day"][1]
    return SumRows(
        _make_span_rows(hours, folded, ""),
        _make_span_rows(*_add_up_people(hours, folded), ALL_PEOPLE),
        [(name, day + suffix, value, key, *total.numbers) for (name, value, day, key), total in attributes.items()],
    )


def _add_up_people(hours: _Hours, folded: _Values) -> tuple[_Hours, _Values]:
    """Return the sums of all people, and their values."""
    sums: _Hours = defaultdict(_Sum)
    values: _Values = {}
    for (hour, key), total in hours.items():
        named = zip(DIMENSIONS, folded[key], strict=True)
        shared, shared_key = _make_key(tuple(None if name in PEOPLE else value for name, value in named))
        values[shared_key] = shared
        sums[hour, shared_key].add(total)
    return sums, values


def _make_span_rows(hours: _Hours, values: _Values, kind: str) -> list[tuple[object, ...]]:
    """Return the rows of each span; `kind` is the end of the names of the spans."""
    sums: defaultdict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    for (hour, key), total in hours.items():
        for span, (length, suffix) in _SPANS.items():
            sums[span + kind, hour[:length] + suffix, key].add(total)
    return [(*at, *values[at[2]], *total.numbers) for at, total in sums.items()]


@lru_cache(maxsize=4096)  # few combinations, each in many records
def _make_key(dimensions: tuple[object, ...]) -> tuple[tuple[object, ...], str]:
    """Return the dimensions as sums have them, without ids of endpoints, and their key."""
    named = zip(DIMENSIONS, dimensions, strict=True)
    values = tuple(fold_ids(str(value)) if name == "endpoint" else value for name, value in named)
    return values, hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def read_amount(text: str) -> tuple[int, int]:
    """Return an amount of decimal text in 1e-12 dollars, and its number of decimals.

    Raises:
        ValueError: it has more than 12 decimals.
    """
    if "E" in text:
        text = f"{Decimal(text):f}"
    whole, _, decimals = text.partition(".")
    places = len(decimals)
    if places > _REST_PLACES:
        raise ValueError(f"{text} has {places} decimals; sums have {_REST_PLACES}")
    return int(f"{whole}{decimals:0<{_REST_PLACES}}"), places


def split_amount(amount: Decimal) -> tuple[int, int, int]:
    """Return an amount as micro-dollars, the rest in 1e-12 dollars, and its number of decimals.

    Raises:
        ValueError: it has more than 12 decimals.
    """
    digits, places = read_amount(f"{amount:f}")
    return *divmod(digits, _MICRO), places


def join_amount(micro: int, rest: int, places: int) -> Decimal:
    """Return the amount of a sum, with as many decimals as the sum of its texts has."""
    digits = micro * _MICRO + rest
    return Decimal(digits // 10 ** (_REST_PLACES - places)).scaleb(-places)
