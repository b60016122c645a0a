"""Reading the ledger: records one by one, and sums.  Synchronous, on a read-only connection of its own."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.rows import RECORD_COLUMNS

#: What sums can be grouped by, and the SQL that tells the group.
GROUPS: Mapping[str, str] = {
    "day": "substr(started_at, 1, 10)",
    **{
        name: f'"{name}"'
        for name in ("project_id", "room", "participant", "user", "session", "provider", "endpoint", "model", "basis")
    },
}


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records; None takes all.  Times are RFC 3339 UTC text, `since` inclusive, `until` exclusive, by start."""

    project_id: str | None = None
    room: str | None = None
    participant: str | None = None
    user: str | None = None
    provider: str | None = None
    model: str | None = None
    basis: str | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What a group of records comes to, USD.  `unsettled` of its requests have a cost that is not wholly known."""

    group: tuple[str | None, ...]
    requests: int
    subtotal: Decimal
    surcharge: Decimal
    total: Decimal
    unsettled: int
    pending: int


Record = Mapping[str, object]


def read_records(path: Path, which: UsageFilter) -> Iterator[Record]:
    """The records, oldest first, as their columns.

    Raises:
        LedgerUnavailable: the file is not there, or is no ledger.
    """
    where, values = _where(which)
    sql = f"SELECT {', '.join(_COLUMNS)} FROM bills {where} ORDER BY started_at, seq"  # noqa: S608  # names of ours
    with closing(_connect(path)) as db:
        for row in _execute(db, path, sql, values):
            yield dict(zip(RECORD_COLUMNS, row, strict=True))


def sum_records(path: Path, which: UsageFilter, group_by: Sequence[str]) -> list[UsageSum]:
    """Sums by group, in the order of the groups; exact, for amounts are added as decimals.

    Raises:
        LedgerUnavailable: the file is not there, or is no ledger.
    """
    where, values = _where(which)
    groups = [GROUPS[name] for name in group_by]
    sql = f"SELECT {', '.join([*groups, 'subtotal', 'surcharge', 'total', 'basis'])} FROM bills {where}"  # noqa: S608  # names of ours
    sums: defaultdict[tuple[str | None, ...], _Running] = defaultdict(_Running)
    with closing(_connect(path)) as db:
        for *group, subtotal, surcharge, total, basis in _execute(db, path, sql, values):
            sums[tuple(group)].add(Decimal(subtotal), Decimal(surcharge), Decimal(total), basis)
    ordered = sorted(sums.items(), key=lambda item: tuple("" if part is None else part for part in item[0]))
    return [running.sum(group) for group, running in ordered]


class _Running:
    __slots__ = ("pending", "requests", "subtotal", "surcharge", "total", "unsettled")

    def __init__(self) -> None:
        self.requests = self.unsettled = self.pending = 0
        self.subtotal = self.surcharge = self.total = Decimal(0)

    def add(self, subtotal: Decimal, surcharge: Decimal, total: Decimal, basis: str) -> None:
        self.requests += 1
        self.subtotal += subtotal
        self.surcharge += surcharge
        self.total += total
        self.unsettled += basis == Basis.UNSETTLED
        self.pending += basis == Basis.PENDING

    def sum(self, group: tuple[str | None, ...]) -> UsageSum:
        return UsageSum(group, self.requests, self.subtotal, self.surcharge, self.total, self.unsettled, self.pending)


_COLUMNS = tuple(f'"{name}"' for name in RECORD_COLUMNS)


def _where(which: UsageFilter) -> tuple[str, list[str]]:
    equal = {
        name: getattr(which, name)
        for name in ("project_id", "room", "participant", "user", "provider", "model", "basis")
        if getattr(which, name) is not None
    }
    clauses = [f'"{name}" = ?' for name in equal]
    values = list(equal.values())
    for limit, clause in ((which.since, "started_at >= ?"), (which.until, "started_at < ?")):
        if limit is not None:
            clauses.append(clause)
            values.append(limit)
    return ("WHERE " + " AND ".join(clauses) if clauses else ""), values


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise LedgerUnavailable(f"{path}: there is no ledger; the server makes it at its first start")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _execute(db: sqlite3.Connection, path: Path, sql: str, values: list[str]) -> sqlite3.Cursor:
    try:
        return db.execute(sql, values)
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"{path}: cannot be read: {error}") from error
