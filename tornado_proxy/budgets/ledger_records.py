"""Reads from the ledger what counters sum: records in the order of their commits, and their final figures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from tornado_proxy.domain.budget import Amount, Spender
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import quote_names

#: Records that one query returns.
_MAX_ROWS = 1000

#: Rows of a query that reads few columns of each.
_MAX_SPENDS = 10_000

#: Request ids that one query names.
_MAX_IDS = 500

_COLUMNS = (
    "seq",
    "request_id",
    "started_at",
    "ended_at",
    "basis",
    "total",
    "subtotal",
    "project_id",
    "participant",
    "user",
    "issuer",
    "credential_id",
    "labels",
    "token_ids",
    "agent_session",
)
_NAMES = quote_names(_COLUMNS)
_SELECT_AFTER = f"SELECT {_NAMES} FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_MAX_ROWS}"  # noqa: S608
#: The columns of a spender in the order of make_spender().
_SPENDER_COLUMNS = _COLUMNS[7:]
_SELECT_SPENDS = (
    f"SELECT seq, total, subtotal, substr(started_at, 1, 13), {quote_names(_SPENDER_COLUMNS)} FROM records "  # noqa: S608
    "WHERE seq > ? AND seq <= ? AND started_at >= ?"
)
_SELECT_FIRST = "SELECT min(seq) FROM records WHERE started_at >= ?"
_SELECT_BASES = (
    f"SELECT seq, request_id, basis FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_MAX_SPENDS}"  # noqa: S608
)
_SELECT_LOST = (
    f"SELECT request_id, started_at, bound_total, bound_subtotal, {quote_names(_SPENDER_COLUMNS)} "  # noqa: S608
    "FROM intents WHERE writer = ? AND bound_total IS NOT NULL"
)
_SELECT_PENDING = (
    "SELECT request_id FROM records r WHERE basis = 'pending' AND seq <= ? "
    "AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.request_id = r.request_id)"
)


class CountedRecord(msgspec.Struct, frozen=True):
    """The members of a record that counters need."""

    seq: int
    request_id: str
    started_at: datetime
    ended_at: datetime
    basis: Basis
    total: Decimal
    subtotal: Decimal
    spender: Spender

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter sums."""
        return amount.choose(self.total, self.subtotal)


@dataclass(frozen=True, slots=True)
class SpendGroup:
    """The sums of requests of one spender that began in one hour, or in one period.

    `at` is a time in it, aware UTC.
    """

    at: datetime
    spender: Spender
    total: Decimal
    subtotal: Decimal

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter sums."""
        return amount.choose(self.total, self.subtotal)


@dataclass(frozen=True, slots=True)
class LostRequest:
    """A request of a process that has died, with the most that it can have cost."""

    request_id: str
    started_at: datetime
    total: Decimal
    subtotal: Decimal
    spender: Spender


def read_after(ledger: Database, seq: int, last_seq: int) -> list[CountedRecord]:
    """Return up to 1,000 records with seq < their seq <= last_seq, in the order of seq."""
    return [_make_record(row) for row in ledger.fetch_rows(_SELECT_AFTER, (seq, last_seq))]


def read_groups(ledger: Database, after: int, last_seq: int, since: str, condition: str = "") -> Iterator[SpendGroup]:
    """Yield the sums, by spender and hour, of the records that began at `since` or later, with after < seq <= last_seq.

    `condition` is SQL that selects some of them.  A group can be yielded several times, with parts of its sum.
    """
    ((first,),) = ledger.fetch_rows(_SELECT_FIRST, (since,))
    if first is None:
        return
    after = max(after, int(str(first)) - 1)
    sql = f"{_SELECT_SPENDS}{f' AND ({condition})' if condition else ''} ORDER BY seq LIMIT {_MAX_SPENDS}"
    while rows := ledger.fetch_rows(sql, (after, last_seq, since)):
        sums: defaultdict[tuple[object, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
        for row in rows:
            group = sums[row[3:]]
            group[0] += Decimal(row[1])  # type: ignore[arg-type]  # text
            group[1] += Decimal(row[2])  # type: ignore[arg-type]  # text
        after = int(str(rows[-1][0]))
        for (hour, *spender), (total, subtotal) in sums.items():
            yield SpendGroup(datetime.fromisoformat(f"{hour}:00:00Z"), make_spender(tuple(spender)), total, subtotal)


def read_originals(ledger: Database, request_ids: Sequence[str]) -> Iterator[CountedRecord]:
    """Yield the records of these requests, with the figures that they had at first."""
    return _read_by_id(ledger, "records", request_ids)


def read_bills(ledger: Database, request_ids: Sequence[str]) -> Iterator[CountedRecord]:
    """Yield the records of these requests, with the figures of their settlements."""
    return _read_by_id(ledger, "bills", request_ids)


def find_ids(ledger: Database, table: str, request_ids: Sequence[str]) -> frozenset[str]:
    """Return those of the requests that have a row in a table of the ledger."""
    found: set[str] = set()
    for start in range(0, len(request_ids), _MAX_IDS):
        ids = request_ids[start : start + _MAX_IDS]
        sql = f"SELECT request_id FROM {table} WHERE request_id IN ({', '.join('?' * len(ids))})"  # noqa: S608
        found.update(str(request_id) for (request_id,) in ledger.fetch_rows(sql, ids))
    return frozenset(found)


def read_bases(ledger: Database, after: int, last_seq: int) -> dict[str, str]:
    """Return the basis of each record with after < seq <= last_seq, by request id."""
    bases: dict[str, str] = {}
    while rows := ledger.fetch_rows(_SELECT_BASES, (after, last_seq)):
        after = int(str(rows[-1][0]))
        bases.update((str(request_id), str(basis)) for _, request_id, basis in rows)
    return bases


def list_lost(ledger: Database, writer: str) -> list[LostRequest]:
    """Return the requests of a process that has died which have no record, and a bound."""
    return [
        LostRequest(
            str(request_id),
            datetime.fromisoformat(str(started_at)),
            Decimal(str(total)),
            Decimal(str(subtotal)),
            make_spender(tuple(spender)),
        )
        for request_id, started_at, total, subtotal, *spender in ledger.fetch_rows(_SELECT_LOST, (writer,))
    ]


def list_pending(ledger: Database, last_seq: int) -> list[str]:
    """Return the requests without a final settlement whose usage comes later."""
    rows = ledger.fetch_rows(_SELECT_PENDING, (last_seq,))
    return [str(request_id) for (request_id,) in rows]


def list_ids(ledger: Database, table: str) -> list[str]:
    """Return the requests that have a row in a table of the ledger."""
    return [str(request_id) for (request_id,) in ledger.fetch_rows(f"SELECT request_id FROM {table}")]  # noqa: S608


def _read_by_id(ledger: Database, table: str, request_ids: Sequence[str]) -> Iterator[CountedRecord]:
    for start in range(0, len(request_ids), _MAX_IDS):
        ids = request_ids[start : start + _MAX_IDS]
        sql = f"SELECT {_NAMES} FROM {table} WHERE request_id IN ({', '.join('?' * len(ids))})"  # noqa: S608
        yield from (_make_record(row) for row in ledger.fetch_rows(sql, ids))


def _make_record(row: tuple[Any, ...]) -> CountedRecord:
    # Made for each record of the ledger, so no value is converted that has its type already.
    return CountedRecord(
        row[0],
        row[1],
        datetime.fromisoformat(row[2]),
        datetime.fromisoformat(row[3]),
        _BASES[row[4]],
        Decimal(row[5]),
        Decimal(row[6]),
        make_spender(row[7:]),
    )


_BASES = {basis.value: basis for basis in Basis}


# Few spenders, each in many records.
@lru_cache(4096)
def make_spender(values: tuple[object, ...]) -> Spender:
    """Return the spender of the last eight columns of a record."""
    project, participant, user, issuer, credential, labels, token_ids, agent_session = values
    return Spender(
        str(project),
        _text(participant),
        _text(user),
        _text(issuer),
        str(credential or ""),
        tuple(json.loads(str(labels)).items()) if labels else (),
        tuple(str(token_ids).split()) if token_ids else (),
        _text(agent_session),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
