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

from tornado_proxy.domain.budgets.counter import Amount
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect, quote_names

#: Seqs whose records one query groups.
_MAX_GROUPED = 2000

#: Rows of a query that reads few columns of each.
_MAX_SPENDS = 10_000

#: Records that one query sums by subject: some 8 MB if each has another one.
_MAX_SUMMED = 20_000

#: Request ids that one query names.
_MAX_IDS = 500

#: The lengths of the times that records of a group share, of their begin and their end: up to the hour and nothing, or
#: up to the second.
_HOURS, _SECONDS = (13, 0), (19, 19)

#: The rest of a time by the length of its begin.
_ENDS = {13: ":00:00Z", 19: "Z"}

#: The columns of a spender in the order of make_spender().
SPENDER_COLUMNS = (
    "project_id",
    "participant",
    "user",
    "issuer",
    "credential_id",
    "labels",
    "token_ids",
    "agent_session",
)
_NAMES = quote_names(("seq", "request_id", "started_at", "basis", "total", "subtotal", *SPENDER_COLUMNS))
_SPENDER_NAMES = quote_names(SPENDER_COLUMNS)
# One row for many records: each row releases the interpreter's lock and waits for it again, which costs the event loop
# more than the query.  `?` are the lengths of the times that records of one group share.
_SELECT_GROUPS = (
    f"SELECT basis, substr(started_at, 1, ?) AS began, substr(ended_at, 1, ?) AS ended, {_SPENDER_NAMES}, "  # noqa: S608
    "{join}(request_id, '\n'), {join}(total, ' '), {join}(subtotal, ' ') FROM records "
    f"WHERE seq > ? AND seq <= ? GROUP BY basis, began, ended, {_SPENDER_NAMES}"
)
_SELECT_NEXT = "SELECT min(seq) FROM records WHERE seq > ?"
_SELECT_SPENDS = (
    f"SELECT seq, total, subtotal, substr(started_at, 1, 13), {quote_names(SPENDER_COLUMNS)} FROM records "  # noqa: S608
    f"WHERE seq > ? AND seq <= ? AND started_at >= ? ORDER BY seq LIMIT {_MAX_SPENDS}"
)
_SELECT_SUBJECTS = (
    "SELECT project_id, {column}, {join}(total, ' '), {join}(subtotal, ' ') FROM records WHERE seq > ? AND seq <= ? "
    "AND started_at >= ? AND started_at < ? AND ({condition}) GROUP BY project_id, {column}"
)
_SELECT_FIRST = "SELECT min(seq) FROM records WHERE started_at >= ?"
_SELECT_ENDED = (
    "SELECT max(seq), {join}(CASE WHEN basis NOT IN ('pending', 'unsettled') THEN request_id END, '\n'), "  # noqa: S608
    "{join}(CASE WHEN basis = 'unsettled' THEN request_id END, '\n'), "
    "{join}(CASE WHEN basis = 'pending' THEN request_id END, '\n') "
    f"FROM (SELECT seq, basis, request_id FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {_MAX_SPENDS}) r"
)
# With the figures and without the settlements that the changes up to a position have.
_SELECT_PENDING = (
    "SELECT r.request_id, r.started_at, coalesce(g.total, r.total), coalesce(g.subtotal, r.subtotal) FROM records r "
    "LEFT JOIN changes c ON c.request_id = r.request_id AND c.kind = 'given_up' AND c.seq <= ? "
    "LEFT JOIN given_up g ON g.request_id = c.request_id "
    "WHERE r.basis = 'pending' AND r.request_id > ? AND +r.seq <= ? AND NOT EXISTS (SELECT 1 FROM changes s "
    "WHERE s.request_id = r.request_id AND s.kind = 'settlement' AND s.seq <= ?) ORDER BY r.request_id LIMIT ?"
)


class CountedRecord(msgspec.Struct, frozen=True):
    """The members of a record that counters need."""

    seq: int
    request_id: str
    started_at: datetime
    basis: Basis
    total: Decimal
    subtotal: Decimal
    spender: Spender

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter sums."""
        return amount.choose(self.total, self.subtotal)


@dataclass(frozen=True, slots=True)
class RecordGroup:
    """Records of one spender and basis that began in one hour, or that began and ended in the same seconds.

    Attributes:
        began: The hour, or the second, in which they began; `ended` is None or the second.
        totals, subtotals: The amounts of the records, with a space between two: few counters sum subtotals.
    """

    basis: Basis
    began: datetime
    ended: datetime | None
    spender: Spender
    request_ids: Sequence[str]
    totals: str
    subtotals: str

    def sum(self, amount: Amount) -> Decimal:
        """Return the sum of the records, USD."""
        return _sum_texts(amount.choose(self.totals, self.subtotals))


@dataclass(frozen=True, slots=True)
class EndedRequests:
    """The ids of requests with records, by the state of their cost: final, unknown, or reported later."""

    settled: Sequence[str]
    unsettled: Sequence[str]
    pending: Sequence[str]


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
class SeqWindow:
    """The records with after < seq <= last_seq that began from `begin` up to `end`, in the text form of the ledger."""

    after: int
    last_seq: int
    begin: str
    end: str


def read_after(
    ledger: Database, dialect: Dialect, seq: int, last_seq: int, *, by_second: bool = False
) -> tuple[list[RecordGroup], int]:
    """Return the records of some seqs after `seq` and up to `last_seq`, and the last of these seqs.

    Args:
        ledger: The ledger.
        dialect: Its SQL.
        seq: The seq of the last record that is not returned.
        last_seq: A seq below which no record will appear.
        by_second: True if the records of a group begin and end in the same seconds, False for the same hour.
    """
    if seq >= last_seq:
        return [], seq
    sql = _SELECT_GROUPS.replace("{join}", dialect.join_texts)
    reached = min(last_seq, seq + _MAX_GROUPED)
    rows = ledger.fetch_rows(sql, (*(_SECONDS if by_second else _HOURS), seq, reached))
    if not rows and reached < last_seq:
        # Pruned records leave gaps of any length.
        ((following,),) = ledger.fetch_rows(_SELECT_NEXT, (reached,))
        reached = last_seq if following is None else min(last_seq, int(str(following)) - 1)
    return [_make_group(row) for row in rows], reached


def _make_group(row: tuple[Any, ...]) -> RecordGroup:
    basis, began, ended, *spender, request_ids, totals, subtotals = row
    return RecordGroup(
        Basis(basis),
        datetime.fromisoformat(began + _ENDS[len(began)]),
        datetime.fromisoformat(f"{ended}Z") if ended else None,
        make_spender(tuple(spender)),
        request_ids.split("\n"),
        totals,
        subtotals,
    )


def read_groups(ledger: Database, after: int, last_seq: int, since: str) -> Iterator[SpendGroup]:
    """Yield the sums, by spender and hour, of the records that began at `since` or later, with after < seq <= last_seq.

    A group can be yielded several times, with parts of its sum.
    """
    ((first,),) = ledger.fetch_rows(_SELECT_FIRST, (since,))
    if first is None:
        return
    after = max(after, int(str(first)) - 1)
    while rows := ledger.fetch_rows(_SELECT_SPENDS, (after, last_seq, since)):
        sums: defaultdict[tuple[object, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
        for row in rows:
            group = sums[row[3:]]
            group[0] += Decimal(row[1])  # type: ignore[arg-type]  # text
            group[1] += Decimal(row[2])  # type: ignore[arg-type]  # text
        after = int(str(rows[-1][0]))
        for (hour, *spender), (total, subtotal) in sums.items():
            yield SpendGroup(datetime.fromisoformat(f"{hour}:00:00Z"), make_spender(tuple(spender)), total, subtotal)


def read_subjects(
    ledger: Database, dialect: Dialect, column: str, condition: str, window: SeqWindow
) -> Iterator[SpendGroup]:
    """Yield the sums, by project and the value of a column, of the records of a window, which `condition` selects.

    A group can be yielded several times, with parts of its sum.  One row for each makes this much faster than
    read_groups(), for kinds of counters that need no other column.
    """
    ((first,),) = ledger.fetch_rows(_SELECT_FIRST, (window.begin,))
    if first is None:
        return
    sql = _SELECT_SUBJECTS.format(column=column, condition=condition, join=dialect.join_texts)
    index = SPENDER_COLUMNS.index(column)
    at = datetime.fromisoformat(window.begin)
    for after in range(max(window.after, int(str(first)) - 1), window.last_seq, _MAX_SUMMED):
        last_seq = min(after + _MAX_SUMMED, window.last_seq)
        for project, value, totals, subtotals in ledger.fetch_rows(sql, (after, last_seq, window.begin, window.end)):
            values = [project, *[None] * (len(SPENDER_COLUMNS) - 1)]
            values[index] = value
            yield SpendGroup(at, make_spender(tuple(values)), _sum_texts(totals), _sum_texts(subtotals))


def _sum_texts(amounts: object) -> Decimal:
    return sum(map(Decimal, str(amounts).split(" ")), Decimal(0))


def read_originals(ledger: Database, request_ids: Sequence[str]) -> Iterator[CountedRecord]:
    """Yield the records of these requests, with the figures that they had at first."""
    return _read_by_id(ledger, "records", request_ids)


def find_ids(ledger: Database, table: str, request_ids: Sequence[str]) -> frozenset[str]:
    """Return those of the requests that have a row in a table of the ledger."""
    found: set[str] = set()
    for start in range(0, len(request_ids), _MAX_IDS):
        ids = request_ids[start : start + _MAX_IDS]
        sql = f"SELECT request_id FROM {table} WHERE request_id IN ({', '.join('?' * len(ids))})"  # noqa: S608
        found.update(str(request_id) for (request_id,) in ledger.fetch_rows(sql, ids))
    return frozenset(found)


def read_ended(ledger: Database, dialect: Dialect, after: int, last_seq: int) -> Iterator[EndedRequests]:
    """Yield the requests that have a record with after < seq <= last_seq."""
    sql = _SELECT_ENDED.replace("{join}", dialect.join_texts)
    while after < last_seq:
        ((last, *ids),) = ledger.fetch_rows(sql, (after, last_seq))
        if last is None:
            return
        after = int(str(last))
        yield EndedRequests(*(str(some).split("\n") if some else () for some in ids))


def list_pending(ledger: Database, end: Position) -> Iterator[tuple[str, str, str, str]]:
    """Yield the id, begin, total and subtotal, as text, of each request whose usage comes after a position."""
    after = ""
    while rows := ledger.fetch_rows(_SELECT_PENDING, (end.change, after, end.record, end.change, _MAX_IDS)):
        for row in rows:
            request_id, started_at, total, subtotal = map(str, row)
            yield request_id, started_at, total, subtotal
        after = str(rows[-1][0])


def _read_by_id(ledger: Database, table: str, request_ids: Sequence[str]) -> Iterator[CountedRecord]:
    for start in range(0, len(request_ids), _MAX_IDS):
        ids = request_ids[start : start + _MAX_IDS]
        sql = f"SELECT {_NAMES} FROM {table} WHERE request_id IN ({', '.join('?' * len(ids))})"  # noqa: S608
        yield from (_make_record(row) for row in ledger.fetch_rows(sql, ids))


def _make_record(row: tuple[Any, ...]) -> CountedRecord:
    return CountedRecord(
        row[0],
        row[1],
        datetime.fromisoformat(row[2]),
        Basis(row[3]),
        Decimal(row[4]),
        Decimal(row[5]),
        make_spender(row[6:]),
    )


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
