"""Queries that list records, or sum them by group.  Synchronous, on a read-only connection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache

from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS
from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.providers.endpoint_template import fold_ids

#: A record of unknown cost has no model; it is listed under the requested one.
_MODEL = "coalesce(model, model_requested)"

#: The names that sums can be grouped by, each with the SQL of the group.
GROUPS: Mapping[str, str] = {
    "day": "substr(started_at, 1, 10)",
    "project": "project_id",
    "model": _MODEL,
    **{
        name: f'"{name}"'
        for name in (
            *("room", "participant", "user", "issuer", "session", "provider", "endpoint", "basis", "provider_key"),
            *ATTRIBUTION_FIELDS,
        )
    },
}

#: The start of the names of further groups: `label.NAME` is the value of the label NAME.
LABEL_PREFIX = "label."

#: `annotation.NAME` is the value of the annotation NAME, in lower case.
ANNOTATION_PREFIX = "annotation."

#: The fields of a request's attribution that records are selected by.
ATTRIBUTION_FILTERS = ("agent_session", "agent", "turn", "client", "repository", "end_user")

#: The members of UsageFilter that are compared for equality, each with the SQL of the column.
_FILTERS: Mapping[str, str] = {
    "project_id": "project_id",
    "model": _MODEL,
    **{
        name: f'"{name}"'
        for name in (
            *("request_id", "upstream_request_id", "room", "participant", "user", "issuer", "session", "provider"),
            "endpoint",
            "basis",
            "provider_key",
            *ATTRIBUTION_FILTERS,
        )
    },
}

#: The value of a group that is all values which a question does not tell apart: a control character, and no name.
OTHERS = "\x01"

#: Adds without rounding: amounts have 12 decimals, and no sum of them has 88 digits before the decimal point.
EXACT = Context(prec=100)


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Selects records; None selects all values of a member.

    since, until: the start of the request, RFC 3339 UTC text; `since` is inclusive, `until` exclusive.
    model: the model of the response, or the requested one if no response named one.
    callers: names of participants and subjects of users, with commas between them.
    retries: "only" selects requests that repeat an earlier one, as their idempotency key or their client's count says.
    """

    project_id: str | None = None
    room: str | None = None
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    session: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    model: str | None = None
    basis: str | None = None
    provider_key: str | None = None
    since: str | None = None
    until: str | None = None
    request_id: str | None = None
    upstream_request_id: str | None = None
    agent_session: str | None = None
    agent: str | None = None
    turn: str | None = None
    client: str | None = None
    repository: str | None = None
    end_user: str | None = None
    callers: str | None = None
    retries: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The sum of a group of records, USD.

    unsettled: the number of requests whose cost is not known.
    pending: the number of requests whose cost the provider reports later.
    """

    group: tuple[str | None, ...]
    requests: int
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    unsettled: int
    pending: int


#: The values of a record by column: text or None, an int for `status`.
Record = Mapping[str, object]


def read_records(backend: Backend, which: UsageFilter, columns: Sequence[str] = PRINTED_COLUMNS) -> Iterator[Record]:
    """Yield records, oldest first, as they are fetched: a large ledger is never held in memory.

    Args:
        backend: the database.
        which: selects the records.
        columns: the names to return, of RECORD_COLUMNS.

    Raises:
        LedgerUnavailable: the ledger does not exist, cannot be read, or is another program's database.
    """
    where, values = build_where(which)
    # SQLite reads the view in the order of an index, and sorts nothing, only if all columns of ORDER BY are selected.
    sql = f"SELECT {quote_names(columns)}, seq FROM bills {where} ORDER BY started_at, seq"  # noqa: S608  # names of ours
    with backend.read() as read:
        for *row, _ in read(sql, values):
            yield dict(zip(columns, row, strict=True))


def is_running(backend: Backend, request_id: str) -> bool:
    """Return True if a request has been sent and has no record yet.

    Raises:
        LedgerUnavailable: the ledger does not exist, cannot be read, or is another program's database.
    """
    with backend.read() as read:
        return any(True for _ in read("SELECT request_id FROM intents WHERE request_id = ?", [request_id]))


def is_named_group(name: str) -> bool:
    """Return True if the name of a group is that of a label or of an annotation."""
    return _text_column(name) is not None


def _text_column(name: str) -> str | None:
    """Return the column that has the values of a label or an annotation as JSON text; None for another group."""
    columns = {LABEL_PREFIX: "labels", ANNOTATION_PREFIX: "annotations"}
    prefix, point, rest = name.partition(".")
    return columns.get(prefix + point) if rest else None


def group_column(name: str) -> str:
    """Return SQL of the column that has the values of a group; those of a label are in the text of all labels."""
    column = _text_column(name)
    return GROUPS[name] if column is None else f'"{column}"'


def fold_group(values: Sequence[str | None], names: Sequence[str]) -> tuple[str | None, ...]:
    """Return the values of a group from its columns.

    Ids of endpoints are folded: a row for each object would be no sum.
    """
    return tuple(_fold(value, name) for name, value in zip(names, values, strict=True))


def _fold(value: str | None, name: str) -> str | None:
    if value is None:
        return None
    if is_named_group(name):
        prefix, _, key = name.partition(".")
        # Names of headers have no case.
        return _read_names(value).get(key.lower() if prefix + "." == ANNOTATION_PREFIX else key)
    return fold_ids(value) if name == "endpoint" else value


def has_annotations(text: str | None, required: Sequence[tuple[str, str]]) -> bool:
    """Return True if annotations, as JSON text, have all of the required ones."""
    return text is not None and set(required) <= _read_names(text).items()


@lru_cache(maxsize=1024)  # few combinations, each in many records
def _read_names(text: str) -> Mapping[str, str]:
    names: Mapping[str, str] = json.loads(text)
    return names


def select_bills(columns: Sequence[str], which: UsageFilter, limit: int) -> tuple[str, list[str]]:
    """Return SQL that selects `columns` (SQL themselves) of up to `limit` records in any order, and its parameters."""
    where, values = build_where(which)
    return f"SELECT {', '.join(columns)} FROM bills {where} LIMIT {limit}", values  # noqa: S608  # names of ours


def add_exactly(amounts: Sequence[Decimal]) -> Decimal:
    """Return the sum of amounts without rounding."""
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def build_where(which: UsageFilter) -> tuple[str, list[str]]:
    """Return the WHERE clause of a filter, or "", and its parameters."""
    conditions = [(f"{sql} = ?", getattr(which, name)) for name, sql in _FILTERS.items()]
    conditions += [("started_at >= ?", which.since), ("started_at < ?", which.until)]
    given = [(clause, value) for clause, value in conditions if value is not None]
    clauses, values = [clause for clause, _ in given], [value for _, value in given]
    if which.retries is not None:
        clauses.append("(retry_of IS NOT NULL OR retry_count IS NOT NULL)")
    if which.callers is not None:
        callers = which.callers.split(",")
        names = ", ".join("?" * len(callers))
        clauses.append(f'("user" IN ({names}) OR participant IN ({names}))')
        values += [*callers, *callers]
    return (f"WHERE {' AND '.join(clauses)}" if clauses else ""), values
