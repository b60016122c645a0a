"""Answers questions about sums from the sums by hour and day, and from the few records that they do not have.

    since ── records ── hours ── days ── hours ── records ── until
                        └── with the records after the cursor, pending ones and lost requests ──┘

Every record is in one of these parts only, so that the answer is that of reading all records, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import LABEL_PREFIX, UsageFilter, build_where, group_column
from tornado_proxy.ledger.rollup_rows import DIMENSIONS, join_amount
from tornado_proxy.ledger.rollups import CURSOR_NAME
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.providers.endpoint_template import fold_ids

#: The groups that the sums have, beside labels.
_GROUPS = frozenset({"day", "project", "room", "participant", "user", "issuer", "provider", "model", "endpoint"}) | {
    "basis",
    "provider_key",
}

#: The members of UsageFilter that the sums can be selected by.
_FILTERS = frozenset({*DIMENSIONS, "since", "until", "callers"}) - {"labels"}

#: The characters of a start that name the interval; a week is made of days.
_LENGTHS = {Interval.HOUR: 13, Interval.DAY: 10, Interval.WEEK: 10, Interval.MONTH: 7}

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)

_AMOUNTS = (
    "sum(requests)",
    "sum(subtotal_micro)",
    "sum(subtotal_rest)",
    "max(subtotal_places)",
    "sum(surcharge_micro)",
    "sum(surcharge_rest)",
    "max(surcharge_places)",
)


@dataclass(frozen=True, slots=True)
class PartialSum:
    """The sum of some requests of one group.

    time: the start of their interval, or the beginning of its text; "" without an interval.
    columns: the values of the columns of the groups.
    basis: how their costs are known.
    """

    time: str
    columns: tuple[str | None, ...]
    basis: str
    requests: int
    subtotal: Decimal
    surcharge: Decimal


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the time: `span` is hour or day; "" for the records themselves.  None is no limit."""

    span: str
    since: str | None
    until: str | None


def is_rolled(which: UsageFilter, groups: Iterable[str]) -> bool:
    """Return True if the sums can answer a question."""
    given = {name for name in UsageFilter.__slots__ if getattr(which, name) is not None}
    times = (time for time in (which.since, which.until) if time is not None)
    return (
        given <= _FILTERS
        and all(name in _GROUPS or name.startswith(LABEL_PREFIX) for name in groups)
        # An endpoint in the sums has no ids.
        and (which.endpoint is None or (fold_ids(which.endpoint) == which.endpoint and "{" not in which.endpoint))
        and all(_is_exact(time) for time in times)
    )


def check_not_pruned(read: Read, which: UsageFilter) -> None:
    """Raise LedgerUnavailable if records that a question needs were pruned, and the sums cannot answer it."""
    before = next((str(value) for (value,) in read("SELECT value FROM meta WHERE key = 'pruned_before'", ())), None)
    if before is not None and (which.since is None or which.since < before):
        raise LedgerUnavailable(
            f"records before {before} are in archives; ask from then on (--since {before}), or in whole hours by "
            f"{', '.join(sorted(_GROUPS))} and labels"
        )


def read_sums(
    read: Read, which: UsageFilter, groups: Sequence[str], interval: Interval | None = None
) -> Iterator[PartialSum]:
    """Yield sums of the requests that a question selects; several can be of one group.

    `read` must be of a snapshot: between two queries of it the cursor must not move.
    """
    positions = [str(text) for (text,) in read("SELECT position FROM cursors WHERE name = ?", (CURSOR_NAME,))]
    rolled = Position.parse(positions[0]) if positions else Position()
    columns = [group_column(name) for name in groups]
    length = 0 if interval is None else _LENGTHS[interval]
    for part in _split(which.since, which.until, by_hour=interval is Interval.HOUR):
        narrowed = replace(which, since=part.since, until=part.until)
        if part.span:
            yield from _read_rollups(read, narrowed, part, columns, length)
            yield from _read_others(read, narrowed, rolled, columns, length)
        else:
            check_not_pruned(read, narrowed)
            yield from _read_records(read, narrowed, "", (), columns, length)


def _split(since: str | None, until: str | None, *, by_hour: bool) -> Iterator[_Part]:
    """Yield the parts of a time: days if possible, hours and records at its edges."""
    first, last = _round_up(since, _HOUR), _round_down(until, _HOUR)
    if first is not None and last is not None and first >= last:
        yield _Part("", since, until)
        return
    if since != first:
        yield _Part("", since, first)
    yield from [_Part("hour", first, last)] if by_hour else _split_hours(first, last)
    if until != last:
        yield _Part("", last, until)


def _split_hours(first: str | None, last: str | None) -> Iterator[_Part]:
    first_day, last_day = _round_up(first, _DAY), _round_down(last, _DAY)
    if first_day is not None and last_day is not None and first_day >= last_day:
        yield _Part("hour", first, last)
        return
    if first != first_day:
        yield _Part("hour", first, first_day)
    yield _Part("day", first_day, last_day)
    if last != last_day:
        yield _Part("hour", last_day, last)


def _read_rollups(
    read: Read, which: UsageFilter, part: _Part, columns: Sequence[str], length: int
) -> Iterator[PartialSum]:
    where, values = build_where(which)
    where = where.replace("started_at", "start").replace("coalesce(model, model_requested)", "model")
    names = [f"substr(start, 1, {length})", *(_rolled_column(column) for column in columns), "basis"]
    sql = (
        f"SELECT {', '.join((*names, *_AMOUNTS))} FROM rollups {where or 'WHERE 1 = 1'} AND span = ? "  # noqa: S608
        f"GROUP BY {', '.join(str(number + 1) for number in range(len(names)))}"
    )
    for time, *group, basis, requests, micro, rest, places, micro_2, rest_2, places_2 in read(
        sql, [*values, part.span]
    ):
        subtotal = join_amount(int(micro), int(rest), int(places))
        surcharge = join_amount(int(micro_2), int(rest_2), int(places_2))
        yield PartialSum(str(time), tuple(group), str(basis), int(requests), subtotal, surcharge)


def _rolled_column(column: str) -> str:
    return column.replace("started_at", "start").replace("coalesce(model, model_requested)", "model")


def _read_others(
    read: Read, which: UsageFilter, rolled: Position, columns: Sequence[str], length: int
) -> Iterator[PartialSum]:
    """Yield the records that the sums do not have: later ones, pending ones, and requests without a record."""
    yield from _read_records(read, which, "seq > ?", (rolled.record,), columns, length)
    yield from _read_records(read, which, "seq IS NULL", (), columns, length)
    times = [("started_at >= ?", which.since), ("started_at < ?", which.until)]
    given = [(clause, value) for clause, value in times if value is not None]
    # An expression has no index: SQLite reads the few pending records by theirs.
    pending = " AND ".join([_PENDING, *(clause for clause, _ in given)])
    values = (rolled.record, rolled.change, *(value for _, value in given))
    ids = [str(request_id) for (request_id,) in read(f"SELECT request_id FROM records WHERE {pending}", values)]  # noqa: S608
    for start in range(0, len(ids), _MAX_IDS):
        some = ids[start : start + _MAX_IDS]
        clause = f"request_id IN ({', '.join('?' * len(some))})"
        yield from _read_records(read, which, clause, some, columns, length)


#: Request ids that one query names.
_MAX_IDS = 500

#: The pending records whose settlements the sums do not have.
_PENDING = (
    "basis = 'pending' AND +seq <= ? AND NOT EXISTS (SELECT 1 FROM changes c "
    "WHERE c.request_id = records.request_id AND c.kind = 'settlement' AND c.seq <= ?)"
)


def _read_records(
    read: Read, which: UsageFilter, clause: str, extra: Sequence[object], columns: Sequence[str], length: int
) -> Iterator[PartialSum]:
    where, values = build_where(which)
    if clause:
        # An expression has no index: SQLite takes that of the project, and not the few records of the clause.
        where = where.replace("project_id =", "project_id || '' =").replace("started_at", "started_at || ''")
    conditions = " AND ".join(part for part in (where or "WHERE 1 = 1", clause) if part)
    names = ", ".join((f"substr(started_at, 1, {length})", *columns, "basis", "subtotal", "surcharge"))
    for time, *group, basis, subtotal, surcharge in read(f"SELECT {names} FROM bills {conditions}", [*values, *extra]):  # noqa: S608
        yield PartialSum(str(time), tuple(group), str(basis), 1, Decimal(str(subtotal)), Decimal(str(surcharge)))


def _is_exact(time: str) -> bool:
    """Return True if a time has the form that records have, so that text order is time order."""
    try:
        return format_time(datetime.fromisoformat(time)) == time
    except ValueError:
        return False


def _round_down(time: str | None, step: timedelta) -> str | None:
    if time is None:
        return None
    at = datetime.fromisoformat(time)
    start = at.replace(minute=0, second=0, microsecond=0)
    return format_time(start.replace(hour=0) if step == _DAY else start)


def _round_up(time: str | None, step: timedelta) -> str | None:
    below = _round_down(time, step)
    if below is None or below == time:
        return below
    return format_time(datetime.fromisoformat(below).astimezone(UTC) + step)
