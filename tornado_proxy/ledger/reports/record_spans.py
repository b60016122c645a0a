"""Finds the hours outside of which no record matches a filter, from the sums by hour and day.

    filter ──> sums of days ──> latest day: sums of its hours ──> spans of time, latest first ──> records

A filter that matches few records, such as a participant with some requests in a month, would otherwise be compared with
every record of the time.  For people, the sums by hour have the numbers of up to a hundred records, which are read
alone.  The hours of records that the sums do not have are added: later ones, pending ones, and lost requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tornado_proxy.ledger.database import Read
from tornado_proxy.ledger.reports.records_query import UsageFilter, build_where
from tornado_proxy.ledger.reports.rollup_query import (
    ATTRIBUTE_JOIN,
    build_sums_where,
    list_given,
)
from tornado_proxy.ledger.reports.sums_state import SumsState, read_state
from tornado_proxy.ledger.reports.time_parts import is_exact_time
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.ledger.sums.rollup_rows import ALL_PEOPLE, ATTRIBUTES, PEOPLE, SEQS
from tornado_proxy.providers.endpoint_template import fold_ids

#: Members of UsageFilter by which sums are kept; the project narrows nothing, because its records have an index.
_KNOWN = frozenset({*PEOPLE, "callers", "provider", "model", "endpoint", "provider_key", "basis", "project_id"})

#: The members that no column of a record decides: a settlement can change the first two, the view computes the last.
_COMPUTED = ("model", "basis", "retries")

#: Records after the cursor whose hours are looked up; if there are more, records are read as they are.
_MAX_LATER = 50_000

#: Keys of sums that one query names; a day with more is read as a whole.
_MAX_KEYS = 500

_HOUR = timedelta(hours=1)

#: Numbers of records that one query names.
_MAX_SEQS = 500


@dataclass(frozen=True, slots=True)
class Span:
    """A time, whose start and end None does not limit, and the numbers of the records that can match, if known."""

    since: str | None
    until: str | None
    seqs: tuple[int, ...] | None = None


def find_spans(read: Read, which: UsageFilter) -> Iterator[Span]:
    """Yield the times that have all records of a filter, latest first; its whole time if the sums cannot tell."""
    state, given = read_state(read), list_given(which)
    attribute = next((name for name in ATTRIBUTES if name in given and state.has_details(which.since)), None)
    is_narrow = bool(attribute or given & _KNOWN - {"project_id"}) and (
        which.since is None or is_exact_time(which.since)
    )
    if not is_narrow or _has_many_later(read, state) or _is_pruned(read, which):
        yield Span(which.since, which.until)
        return
    known = UsageFilter(**{name: getattr(which, name) for name in given & _KNOWN})
    if known.endpoint is not None:
        known = replace(known, endpoint=fold_ids(known.endpoint))
    others = _find_others(read, which, state)
    search = _Search(read, known, attribute, str(getattr(which, attribute)) if attribute else "", state)
    latest, earliest = which.until or "~", which.since or ""
    days = search.list_days(earliest, latest)
    for day in sorted({*days, *others}, reverse=True):
        found = search.list_hours(day, days[day]) if day in days else {}
        hours: dict[str, tuple[int, ...] | None] = {**found, **dict.fromkeys(others.get(day, ()))}
        for span in _join(sorted(hours.items(), reverse=True)):
            if span.since < latest and span.until > earliest:
                yield Span(max(span.since, earliest), min(span.until, latest), span.seqs)


def _has_many_later(read: Read, state: SumsState) -> bool:
    ((last,),) = read("SELECT coalesce(max(seq), 0) FROM records", ())
    return int(last) - state.rolled.record > _MAX_LATER


def _is_pruned(read: Read, which: UsageFilter) -> bool:
    """Return True if sums of the time may be of records that the ledger does not have any more."""
    sql = "SELECT value FROM meta WHERE key = 'pruned_before'"
    return any((which.since or "") < str(value) for (value,) in read(sql, ()))


def _find_others(read: Read, which: UsageFilter, state: SumsState) -> dict[str, set[str]]:
    """Return the hours of the requests that the sums do not have, by day: all that match, and perhaps more."""
    where, values = build_where(replace(which, **dict.fromkeys(_COMPUTED)))
    # An expression has no index: SQLite takes that of the project or the time otherwise, and not the few records.
    condition = (where or "WHERE 1 = 1").replace("project_id =", "project_id || '' =")
    hidden = condition.replace("started_at", "started_at || ''")
    hour = "SELECT DISTINCT substr(started_at, 1, 13) FROM"
    rows = [
        *read(f"{hour} records {hidden} AND seq > ?", [*values, state.rolled.record]),
        *read(f"{hour} bills {hidden} AND seq IS NULL", values),
        *read(f"{hour} records {condition} AND basis = 'pending'", values),
    ]
    days: defaultdict[str, set[str]] = defaultdict(set)
    for (start,) in rows:
        days[f"{start[:10]}T00:00:00.000Z"].add(f"{start}:00:00.000Z")
    return days


@dataclass(frozen=True, slots=True)
class _Search:
    """Searches sums for a filter that has members of _KNOWN only, and perhaps for a value of an attribute."""

    read: Read
    known: UsageFilter
    attribute: str | None
    value: str
    state: SumsState

    def list_days(self, since: str, until: str) -> dict[str, list[str]]:
        """Return the starts of the days that have matching requests, with the keys of their sums."""
        where, values = build_sums_where(self.known)
        first = f"{since[:10]}T00:00:00.000Z" if since else ""
        if self.attribute is not None:
            sql = f"SELECT DISTINCT s.start, s.key FROM {_JOINED} WHERE {where} {_OF_ATTRIBUTE}"  # noqa: S608  # names of ours
            rows = self.read(sql, [*values, self.attribute, self.value, first, until])
        else:
            sql = f"SELECT start, key FROM rollups WHERE {where} AND span = ? AND start >= ? AND start < ?"  # noqa: S608
            rows = self.read(sql, [*values, self._name_span("day", since), first, until])
        days: defaultdict[str, list[str]] = defaultdict(list)
        for start, key in rows:
            days[str(start)].append(str(key))
        return days

    def list_hours(self, day: str, keys: Sequence[str]) -> dict[str, tuple[int, ...] | None]:
        """Return the starts of the hours of a day that have sums with `keys`, with the numbers of records if known."""
        starts = [_add(day, number * _HOUR) for number in range(24)]
        if len(keys) > _MAX_KEYS:
            return dict.fromkeys(starts)
        span = "hour" if self.attribute is not None else self._name_span("hour", day)
        # All columns of the primary key are compared for equality: no other sums of the day are read.
        sql = (
            f"SELECT start, requests, {SEQS} FROM rollups WHERE span = ? "  # noqa: S608  # names of ours
            f"AND start IN ({', '.join('?' * len(starts))}) AND key IN ({', '.join('?' * len(keys)) or 'NULL'})"
        )
        hours: dict[str, tuple[int, ...] | None] = {}
        for start, requests, text in self.read(sql, [span, *starts, *keys]):
            known = hours.get(str(start), ())
            seqs = tuple(map(int, str(text).split(","))) if text is not None else ()
            hours[str(start)] = (*known, *seqs) if known is not None and len(seqs) == int(requests) else None
        return hours

    def _name_span(self, span: str, since: str) -> str:
        names_people = bool({*PEOPLE, "callers"} & list_given(self.known))
        return span if names_people or not self.state.has_details(since) else span + ALL_PEOPLE


#: The sums of an attribute, with the dimensions of each.
_JOINED = f"attribute_sums s {ATTRIBUTE_JOIN}"
_OF_ATTRIBUTE = "AND s.name = ? AND s.value = ? AND s.start >= ? AND s.start < ?"


@dataclass(frozen=True, slots=True)
class _Hours:
    """Some hours of a day, and the numbers of their records, if known."""

    since: str
    until: str
    seqs: tuple[int, ...] | None


def _join(hours: Sequence[tuple[str, tuple[int, ...] | None]]) -> Iterator[_Hours]:
    """Yield hours, which are in descending order, with several in one: consecutive ones, or those of known records."""
    joined: _Hours | None = None
    for since, seqs in hours:
        until = _add(since, _HOUR)
        if joined is None:
            joined = _Hours(since, until, seqs)
        elif seqs is None and joined.seqs is None and until == joined.since:
            joined = replace(joined, since=since)
        elif seqs is not None and joined.seqs is not None and len(seqs) + len(joined.seqs) <= _MAX_SEQS:
            joined = _Hours(since, joined.until, (*joined.seqs, *seqs))
        else:
            yield joined
            joined = _Hours(since, until, seqs)
    if joined is not None:
        yield joined


def _add(time: str, length: timedelta) -> str:
    return format_time(datetime.fromisoformat(time) + length)
