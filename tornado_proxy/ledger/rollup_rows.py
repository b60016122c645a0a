"""The rows of sums by hour and day: their table, their amounts, and how records become rows.

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

#: The lengths of time, with the characters of a time that name one and the text that completes them to its start.
SPANS: Mapping[str, tuple[int, str]] = {"hour": (13, ":00:00.000Z"), "day": (10, "T00:00:00.000Z")}

_REST_PLACES = 12
_MICRO = 10**6

COLUMNS = ("span", "start", "key", *DIMENSIONS, *SUMS)


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
"""


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    subtotal: Decimal = Decimal(0)
    surcharge: Decimal = Decimal(0)

    def add(self, requests: int, subtotal: Decimal, surcharge: Decimal) -> None:
        self.requests += requests
        self.subtotal += subtotal
        self.surcharge += surcharge


def make_rows(records: Iterable[Sequence[object]]) -> list[tuple[object, ...]]:
    """Return the rows that add records to the sums, one for each key; pending records are left out."""
    hours: defaultdict[tuple[object, ...], _Sum] = defaultdict(_Sum)
    for _, started_at, *dimensions, subtotal, surcharge in records:
        if dimensions[-1] != Basis.PENDING:
            hours[str(started_at)[:13], *dimensions].add(1, Decimal(str(subtotal)), Decimal(str(surcharge)))
    keyed: defaultdict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    folded: dict[str, tuple[object, ...]] = {}
    for (hour, *dimensions), total in hours.items():
        values, key = _make_key(tuple(dimensions))
        folded[key] = values
        for span, (length, suffix) in SPANS.items():
            keyed[span, str(hour)[:length] + suffix, key].add(total.requests, total.subtotal, total.surcharge)
    return [
        (*at, *folded[at[2]], total.requests, *split_amount(total.subtotal), *split_amount(total.surcharge))
        for at, total in keyed.items()
    ]


@lru_cache(maxsize=4096)  # few combinations, each in many records
def _make_key(dimensions: tuple[object, ...]) -> tuple[tuple[object, ...], str]:
    """Return the dimensions as sums have them, without ids of endpoints, and their key."""
    named = zip(DIMENSIONS, dimensions, strict=True)
    values = tuple(fold_ids(str(value)) if name == "endpoint" else value for name, value in named)
    return values, hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def split_amount(amount: Decimal) -> tuple[int, int, int]:
    """Return an amount as micro-dollars, the rest in 1e-12 dollars, and its number of decimals.

    Raises:
        ValueError: it has more than 12 decimals.
    """
    exponent = amount.as_tuple().exponent
    places = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    if places > _REST_PLACES:
        raise ValueError(f"{amount} has {places} decimals; sums have {_REST_PLACES}")
    micro, rest = divmod(int(amount.scaleb(_REST_PLACES)), _MICRO)
    return micro, rest, places


def join_amount(micro: int, rest: int, places: int) -> Decimal:
    """Return the amount of a sum, with as many decimals as the sum of its texts has."""
    digits = micro * _MICRO + rest
    return Decimal(digits // 10 ** (_REST_PLACES - places)).scaleb(-places)
