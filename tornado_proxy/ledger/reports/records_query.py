"""Read the ledger: records one by one, and sums.  Synchronous, on a read-only connection (read_connection.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from tornado_proxy.domain.ledger_address import LedgerAddress
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.dialect import quoted
from tornado_proxy.ledger.reports.read_connection import reading
from tornado_proxy.ledger.rows import PRINTED_COLUMNS

#: A record whose cost is not known names no model: it goes under the one that was asked for, not under none.
_MODEL = "coalesce(model, model_requested)"

#: What sums can be grouped by, and the SQL that tells the group.
GROUPS: Mapping[str, str] = {
    "day": "substr(started_at, 1, 10)",
    "project": "project_id",
    "model": _MODEL,
    **{name: f'"{name}"' for name in ("room", "participant", "user", "session", "provider", "endpoint", "basis")},
}

#: What can be filtered by, and the SQL that is compared.
_FILTERS: Mapping[str, str] = {
    "project_id": "project_id",
    "model": _MODEL,
    **{
        name: f'"{name}"'
        for name in ("request_id", "room", "participant", "user", "session", "provider", "endpoint", "basis")
    },
}

#: Adds without rounding: amounts have 12 decimals, and no sum of them has 88 digits before the point.
_EXACT = Context(prec=100)


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records; None takes all.  Times are RFC 3339 UTC text, `since` inclusive, `until` exclusive, by start.

    `model` is the model of the answer, or the one asked for where no answer named one.
    """

    project_id: str | None = None
    room: str | None = None
    participant: str | None = None
    user: str | None = None
    session: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    model: str | None = None
    basis: str | None = None
    since: str | None = None
    until: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What a group of records comes to, USD.  The cost of `unsettled` of its requests is not known.

    The provider reports that of `pending` ones later.
    """

    group: tuple[str | None, ...]
    requests: int
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    unsettled: int
    pending: int


#: A record by its columns: text, or None; `status` is an int.
Record = Mapping[str, object]


def read_records(
    ledger: LedgerAddress, which: UsageFilter, columns: Sequence[str] = PRINTED_COLUMNS
) -> Iterator[Record]:
    """The records with these of RECORD_COLUMNS, oldest first, one by one: a large ledger is never in memory.

    Raises:
        LedgerUnavailable: it is not there, cannot be read, or is no ledger.
    """
    where, values = _where(which)
    # `seq` is selected because SQLite can go by an index, and sort nothing, only if all that it orders by is.
    sql = f"SELECT {quoted(columns)}, seq FROM bills {where} ORDER BY started_at, seq"  # noqa: S608  # names of ours
    with reading(ledger) as read:
        for *row, _ in read(sql, values):
            yield dict(zip(columns, row, strict=True))


def sum_records(ledger: LedgerAddress, which: UsageFilter, group_by: Sequence[str]) -> list[UsageSum]:
    """Sums by group (names of GROUPS), in the order of the groups; exact, for amounts are added as decimals.

    Raises:
        LedgerUnavailable: it is not there, cannot be read, or is no ledger.
    """
    where, values = _where(which)
    columns = [*(GROUPS[name] for name in group_by), "subtotal", "surcharge", "total", "basis"]
    sql = f"SELECT {', '.join(columns)} FROM bills {where}"  # noqa: S608  # names of ours
    sums: defaultdict[tuple[str | None, ...], _Running] = defaultdict(_Running)
    with reading(ledger) as read:
        for *group, subtotal, surcharge, total, basis in read(sql, values):
            sums[tuple(group)].add(Decimal(subtotal), Decimal(surcharge), Decimal(total), basis)
    ordered = sorted(sums.items(), key=lambda item: tuple("" if part is None else part for part in item[0]))
    return [running.sum(group) for group, running in ordered]


def select_bills(columns: Sequence[str], which: UsageFilter, most: int) -> tuple[str, list[str]]:
    """SQL that gives `columns` (SQL themselves) of at most `most` records, in any order; and its parameters."""
    where, values = _where(which)
    return f"SELECT {', '.join(columns)} FROM bills {where} LIMIT {most}", values  # noqa: S608  # names of ours


def add_exactly(amounts: Sequence[Decimal]) -> Decimal:
    """The sum of amounts, unrounded."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


class _Running:
    __slots__ = ("pending", "requests", "subtotal", "surcharge", "total", "unsettled")

    def __init__(self) -> None:
        self.requests = self.unsettled = self.pending = 0
        self.subtotal = self.surcharge = self.total = Decimal(0)

    def add(self, subtotal: Decimal, surcharge: Decimal, total: Decimal, basis: str) -> None:
        self.requests += 1
        self.subtotal = _EXACT.add(self.subtotal, subtotal)
        self.surcharge = _EXACT.add(self.surcharge, surcharge)
        self.total = _EXACT.add(self.total, total)
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING

    def sum(self, group: tuple[str | None, ...]) -> UsageSum:
        return UsageSum(group, self.requests, self.subtotal, self.surcharge, self.total, self.unsettled, self.pending)


def _where(which: UsageFilter) -> tuple[str, list[str]]:
    asked = {sql: getattr(which, name) for name, sql in _FILTERS.items()}
    clauses = [f"{sql} = ?" for sql, value in asked.items() if value is not None]
    values = [value for value in asked.values() if value is not None]
    for limit, clause in ((which.since, "started_at >= ?"), (which.until, "started_at < ?")):
        if limit is not None:
            clauses.append(clause)
            values.append(limit)
    return ("WHERE " + " AND ".join(clauses) if clauses else ""), values
