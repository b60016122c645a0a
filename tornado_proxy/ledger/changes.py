"""Reads the ledger as a sequence of changes, which any number of programs follow, each with its own position.

    records   seq 1 2 3 4 5 ...     each record once, with the figures that it had at first
    changes   seq 1 2 3 ...         later figures: settlements, given up requests; lost requests, which have no record

A position is a number of each.  Records and changes are committed by many processes; find_end() returns a position
below which nothing will appear any more, so a program that reads up to it misses nothing.

A change whose record is after the position is passed by, and returned with its record: a change never precedes its
record.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.columns import PRINTED_COLUMNS, SETTLED_COLUMNS
from tornado_proxy.ledger.database import Backend, Database, Read
from tornado_proxy.ledger.schema import lost_column, retry_of

#: Records, and later changes, of one batch.
DEFAULT_LIMIT = 1000

#: Request ids that one query names.
_MAX_IDS = 500

#: The columns of a change.
COLUMNS = (
    *PRINTED_COLUMNS,
    "object_id",
    "upstream_request_id",
    "credential_id",
    "annotations",
    "faults",
    "traceparent",
)

#: The figures that a change replaces.
REPLACED_COLUMNS = ("basis", "subtotal", "surcharge", "total")

_POSITION = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")


def _columns(figures: str) -> str:
    """Return SQL of COLUMNS of a record, with the figures of `figures`: the record, or a row of settlements."""
    tables = {name: figures if name in SETTLED_COLUMNS else "r" for name in COLUMNS}
    return ", ".join(retry_of("r") if name == "retry_of" else f'{table}."{name}"' for name, table in tables.items())


_SELECT_LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM records"
#: The numbers of the last record and of the last change.
SELECT_END = "SELECT (SELECT coalesce(max(seq), 0) FROM records), (SELECT coalesce(max(seq), 0) FROM changes)"

_SELECT_RECORDS = (
    f"SELECT r.seq, {_columns('r')} FROM records r "  # noqa: S608  # names of ours
    "WHERE r.seq > ? AND r.seq <= ? ORDER BY r.seq LIMIT ?"
)
_SELECT_CHANGES = (
    "SELECT c.seq, c.request_id, c.kind, r.seq FROM changes c LEFT JOIN records r ON r.request_id = c.request_id "
    "WHERE c.seq > ? AND c.seq <= ? ORDER BY c.seq LIMIT ?"
)
_SELECT_PASSED = "SELECT seq, request_id, kind FROM changes WHERE seq <= ? AND request_id IN ({ids}) ORDER BY seq"


def _replaced_columns(condition: str) -> str:
    """Return SQL of REPLACED_COLUMNS: those of given_up if the condition is true, else those of the record."""
    return ", ".join(f'CASE WHEN {condition} THEN g."{name}" ELSE r."{name}" END' for name in REPLACED_COLUMNS)


_LOST_COLUMNS = ", ".join(retry_of("i") if name == "retry_of" else lost_column(name) for name in COLUMNS)

#: The query of the figures of a change, with `{ids}` for the placeholders of request ids.
_SELECT_FIGURES = {
    "settlement": (
        f"SELECT s.settled_at, {_columns('s')}, {_replaced_columns('earlier.seq < c.seq')} FROM changes c "  # noqa: S608  # names of ours
        "JOIN records r ON r.request_id = c.request_id JOIN settlements s ON s.request_id = c.request_id "
        "LEFT JOIN given_up g ON g.request_id = c.request_id "
        "LEFT JOIN changes earlier ON earlier.request_id = c.request_id AND earlier.kind = 'given_up' "
        "WHERE c.kind = 'settlement' AND c.request_id IN ({ids})"
    ),
    # After its settlement it has no effect.
    "given_up": (
        f"SELECT g.settled_at, {_columns('g')}, {_replaced_columns('1 = 0')} FROM changes c "  # noqa: S608  # names of ours
        "JOIN records r ON r.request_id = c.request_id JOIN given_up g ON g.request_id = c.request_id "
        "LEFT JOIN changes earlier ON earlier.request_id = c.request_id AND earlier.kind = 'settlement' "
        "WHERE c.kind = 'given_up' AND (earlier.seq IS NULL OR earlier.seq > c.seq) AND c.request_id IN ({ids})"
    ),
    # Without those that have a record by now, or whose process lives after all.
    "lost": (
        f"SELECT i.lost_at, {_LOST_COLUMNS} FROM intents i "  # noqa: S608  # names of ours
        "WHERE i.lost_at IS NOT NULL AND i.request_id IN ({ids}) "
        "AND NOT EXISTS (SELECT 1 FROM records r WHERE r.request_id = i.request_id)"
    ),
}


class ChangeKind(StrEnum):
    """The kinds of changes; the values are those of the column `kind`, beside RECORD."""

    #: A request has ended.
    RECORD = "record"
    #: The provider has reported the usage of a pending request.
    SETTLEMENT = "settlement"
    #: The provider has not reported it for hours; a settlement can follow.
    GIVEN_UP = "given_up"
    #: The process of a request has died; its record can follow.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a program has read: the seq of the last record, and of the last change.  Its text is opaque to users."""

    record: int = 0
    change: int = 0

    def __str__(self) -> str:
        return f"{self.record}.{self.change}"

    def is_before(self, other: Position) -> bool:
        """Return True if `other` has read everything that this position has, and more."""
        return self != other and self.record <= other.record and self.change <= other.change

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position with this text; raise ValueError if it is none."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no cursor; use 0.0 for the beginning, or one that an export has printed")
        return cls(int(match[1]), int(match[2]))


#: The position before all changes.
BEGINNING = Position()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one request.

    Attributes:
        at: The time of the change, RFC 3339 UTC text: the end of a request, or when the later figures became known.
        row: The record by COLUMNS, with the figures of this change.
        replaced: The figures that it replaces, by REPLACED_COLUMNS; None for a record and a lost request.
    """

    kind: ChangeKind
    at: str
    row: Mapping[str, object]
    replaced: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Some changes, and the position after them.  The last batch has no changes and the position of the end."""

    changes: Sequence[Change]
    position: Position


def find_last_seq(db: Database, wait_for_writers: str) -> int:
    """Return the seq of the last record, below which no record will appear.

    PostgreSQL draws the numbers before it commits, so a later number can be visible before an earlier one.
    `wait_for_writers` waits for the transactions that write records now; SQLite runs one at a time and needs no lock.
    """
    if not wait_for_writers:
        return int(str(db.fetch_rows(_SELECT_LAST_SEQ)[0][0]))
    with db.transaction():
        db.run(wait_for_writers)
        return int(str(db.fetch_rows(_SELECT_LAST_SEQ)[0][0]))


def find_written_end(db: Database, wait_for_writers: str) -> Position:
    """Return the position below which no record and no change will appear, as find_end() and find_last_seq() do."""
    if not wait_for_writers:
        return _read_end(db)
    with db.transaction():
        db.run(wait_for_writers)
        return _read_end(db)


def _read_end(db: Database) -> Position:
    ((record, change),) = db.fetch_rows(SELECT_END)
    return Position(int(str(record)), int(str(change)))


def find_end(backend: Backend) -> Position:
    """Return the position of the last change.  Nothing will appear before it.

    Raises:
        LedgerUnavailable: the ledger does not exist or cannot be read.
    """
    # A connection of its own: writers wait until the transaction ends that has waited for them.
    with backend.read() as read:
        if backend.dialect.wait_for_writers:
            ((is_standby,),) = read(backend.dialect.is_standby, ())
            if is_standby:
                raise LedgerUnavailable(
                    f"{backend.name}: a standby does not know which records are being written; name the primary"
                )
            list(read(backend.dialect.wait_for_writers, ()))
        ((record, change),) = read(SELECT_END, ())
        return Position(int(record), int(change))


def follow(backend: Backend, after: Position, limit: int = DEFAULT_LIMIT) -> Iterator[ChangeBatch]:
    """Yield the changes after a position up to the end that the ledger has now, in batches.

    No connection is open between two batches, however long the program takes for one.

    Raises:
        LedgerUnavailable: the ledger does not exist or cannot be read, or `after` is a position of another ledger.
    """
    end = find_end(backend)
    if after.record > end.record or after.change > end.change:
        raise LedgerUnavailable(
            f"{backend.name}: the cursor {after} is after the last change {end}; is it of this ledger?"
        )
    while after.is_before(end):
        with backend.read() as read:
            batch = read_changes(read, after, end, limit)
        yield batch
        after = batch.position


def read_changes(read: Read, after: Position, end: Position, limit: int = DEFAULT_LIMIT) -> ChangeBatch:
    """Return the next changes after a position, up to `end` (find_end), in the same order in each call.

    A batch without changes can have a position before the end; that of the last batch is the end.
    """
    rows = list(read(_SELECT_RECORDS, (after.record, end.record, limit)))
    last_record = int(rows[-1][0]) if len(rows) == limit else end.record
    later = list(read(_SELECT_CHANGES, (after.change, end.change, limit)))
    last_change = int(later[-1][0]) if len(later) == limit else end.change
    records = [_make_record(values) for _, *values in rows]
    ids = [str(record.row["request_id"]) for record in records if record.row["basis"] == Basis.PENDING]
    passed = [(str(name), ChangeKind(kind)) for _, name, kind in _read_by_id(read, _SELECT_PASSED, ids, after.change)]
    reached = [(str(name), ChangeKind(kind)) for _, name, kind, seq in later if seq is None or seq <= last_record]
    figures = _read_figures(read, [*passed, *reached])
    changes = [*_follow_records(records, passed, figures), *_list_found(reached, figures)]
    return ChangeBatch(changes, Position(last_record, last_change))


def _make_record(values: Sequence[object]) -> Change:
    row = dict(zip(COLUMNS, values, strict=True))
    return Change(ChangeKind.RECORD, str(row["ended_at"]), row)


#: A request id and the kind of a change of it.
_Key = tuple[str, ChangeKind]


def _follow_records(
    records: Iterable[Change], passed: Iterable[_Key], figures: Mapping[_Key, Change]
) -> Iterator[Change]:
    """Yield records, each followed by its changes that were passed by."""
    by_record = defaultdict(list)
    for key in passed:
        by_record[key[0]].append(key)
    for record in records:
        yield record
        yield from _list_found(by_record.get(str(record.row["request_id"]), ()), figures)


def _list_found(keys: Iterable[_Key], figures: Mapping[_Key, Change]) -> Iterator[Change]:
    yield from (figures[key] for key in keys if key in figures)


def _read_figures(read: Read, keys: Sequence[_Key]) -> Mapping[_Key, Change]:
    found: dict[_Key, Change] = {}
    for kind in dict.fromkeys(kind for _, kind in keys):
        ids = [request_id for request_id, key_kind in keys if key_kind is kind]
        for at, *values in _read_by_id(read, _SELECT_FIGURES[kind], ids):
            row = dict(zip(COLUMNS, values, strict=False))
            replaced = dict(zip(REPLACED_COLUMNS, values[len(COLUMNS) :], strict=False)) or None
            found[str(row["request_id"]), kind] = Change(kind, str(at), row, replaced)
    return found


def _read_by_id(read: Read, sql: str, ids: Sequence[str], *values: object) -> Iterator[Any]:
    for start in range(0, len(ids), _MAX_IDS):
        some = ids[start : start + _MAX_IDS]
        yield from read(sql.format(ids=", ".join("?" * len(some))), (*values, *some))
