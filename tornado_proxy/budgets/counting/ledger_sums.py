"""Sums the records of the ledger for counters, with the figures that the records had at first.

    kinds by project, participant, user, label ──> rows of ledger/sums/rollups.py, and the records after them
    other kinds ─────────────────────────────────> the records of the period that have such a subject, by subject

A month of a million records so takes a moment to sum for most kinds, and some four seconds for each of the others.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting import ledger_records
from tornado_proxy.budgets.counting.counters import CounterKey, make_keys
from tornado_proxy.budgets.counting.ledger_records import SeqWindow, SpendGroup
from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.domain.budgets.counter import CounterKind, Interval, Period, Scope
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.ledger.sums.rollup_rows import join_amount
from tornado_proxy.ledger.sums.rollups import SELECT_PRUNED

#: The scopes whose subjects the sums by hour and day know.
_ROLLED_SCOPES = frozenset({Scope.PROJECT, Scope.PARTICIPANT, Scope.USER, Scope.LABEL})

#: The column with the subject of a scope which the sums do not know, and the records that have one.
_SUBJECTS: Mapping[Scope, tuple[str, str]] = {
    Scope.ACCESS_KEY: ("credential_id", "credential_id >= 'ak_' AND credential_id < 'ak`'"),
    Scope.TOKEN: ("token_ids", "token_ids IS NOT NULL"),
    Scope.AGENT_SESSION: ("agent_session", "agent_session IS NOT NULL"),
}

# One statement, so that the sums and their position belong together.
_SELECT_ROLLUPS = (
    "SELECT (SELECT position FROM cursors WHERE name = 'rollups'), project_id, participant, \"user\", issuer, labels, "
    "sum(subtotal_micro), sum(subtotal_rest), max(subtotal_places), "
    "sum(surcharge_micro), sum(surcharge_rest), max(surcharge_places) "
    "FROM rollups WHERE span = ? AND start >= ? AND start < ? "
    'GROUP BY project_id, participant, "user", issuer, labels'
)
# The sums have no pending records, and those of settled ones have the figures of their settlements.  `+`: SQLite reads
# the few pending records by their own index.
_SELECT_PENDING = (
    'SELECT r.started_at, r.project_id, r.participant, r."user", r.issuer, r.labels, r.total, r.subtotal, '
    "s.subtotal, s.surcharge "
    "FROM records r LEFT JOIN changes c ON c.request_id = r.request_id AND c.kind = 'settlement' AND c.seq <= ? "
    "LEFT JOIN settlements s ON s.request_id = c.request_id "
    "WHERE r.basis = 'pending' AND +r.seq <= ? AND r.started_at >= ?"
)

#: The end of a period that has none: after all times that records have.
_FOREVER = "9999"


#: An amount of a counter.
CounterAmount = tuple[CounterKey, Decimal]

#: Takes amounts, some of a counter each, before it returns.
Add = Callable[[Iterable[CounterAmount]], None]


@dataclass(frozen=True, slots=True)
class SummedKinds:
    """Some kinds of counters, whose sums have the records up to `seq`."""

    kinds: tuple[CounterKind, ...]
    seq: int


def list_whole(ledger: Database, kinds: Iterable[CounterKind], now: datetime) -> list[CounterKind]:
    """Return the kinds whose sums of current periods have all records.

    Records that were pruned are in the sums by hour and day only, and so not in those of other kinds.
    """
    pruned_before = max((str(time) for (time,) in ledger.fetch_rows(SELECT_PRUNED)), default="")
    return [
        kind
        for kind in kinds
        if kind.scope in _ROLLED_SCOPES
        or format_time(find_interval(kind.period, kind.start, now).begin) >= pruned_before
    ]


def read_sums(ledger: Database, kinds: Sequence[CounterKind], now: datetime, add: Add) -> list[SummedKinds]:
    """Add the sums of current counters that the ledger has by hour and day; those of other kinds have none, `seq` 0.

    Few amounts are in memory at a time, however many counters there are.
    """
    others = tuple(kind for kind in kinds if kind.scope not in _ROLLED_SCOPES)
    by_span: defaultdict[tuple[str, Interval], list[CounterKind]] = defaultdict(list)
    for kind in kinds:
        if kind not in others:
            span = "hour" if kind.period is Period.HOUR else "day"
            by_span[span, find_interval(kind.period, kind.start, now)].append(kind)
    summed = [SummedKinds(tuple(some), _read_span(ledger, some, *span, add)) for span, some in by_span.items()]
    return [*summed, SummedKinds(others, 0)] if others else summed


def list_amounts(
    ledger: Database, dialect: Dialect, kinds: Sequence[CounterKind], now: datetime, seqs: tuple[int, int]
) -> Iterator[CounterAmount]:
    """Yield the amounts of records for the counters of the current periods.

    Args:
        ledger: The ledger.
        dialect: Its SQL.
        kinds: The kinds of the counters.
        now: The time whose periods are the current ones.
        seqs: The seq of the last record before the first of them, and that of the last one.
    """
    if seqs[0] >= seqs[1]:
        return
    rolled = [kind for kind in kinds if kind.scope in _ROLLED_SCOPES]
    yield from _list_subject_amounts(ledger, dialect, [kind for kind in kinds if kind not in rolled], now, seqs)
    if rolled:
        since = format_time(min(find_interval(kind.period, kind.start, now).begin for kind in rolled))
        for group in ledger_records.read_groups(ledger, *seqs, since):
            yield from _list_amounts(group, rolled, now)


def _list_subject_amounts(
    ledger: Database, dialect: Dialect, kinds: Sequence[CounterKind], now: datetime, seqs: tuple[int, int]
) -> Iterator[CounterAmount]:
    """Yield amounts for counters whose subjects are in a column of their own."""
    by_query: defaultdict[tuple[Scope, Interval], list[CounterKind]] = defaultdict(list)
    for kind in kinds:
        by_query[kind.scope, find_interval(kind.period, kind.start, now)].append(kind)
    for (scope, interval), some in by_query.items():
        end = _FOREVER if interval.end is None else format_time(interval.end)
        window = SeqWindow(*seqs, format_time(interval.begin), end)
        for group in ledger_records.read_subjects(ledger, dialect, *_SUBJECTS[scope], window):
            yield from _list_of_kinds(group, some)


def is_current(kind: CounterKind, at: datetime, now: datetime) -> bool:
    """Return True if `at` is in the period of `kind` that contains `now`."""
    interval = find_interval(kind.period, kind.start, now)
    return interval.begin <= at and (interval.end is None or at < interval.end)


def _read_span(ledger: Database, kinds: Sequence[CounterKind], span: str, interval: Interval, add: Add) -> int:
    """Add the sums of kinds with the same period; return the seq of the last record in them."""
    begin = format_time(interval.begin)
    end = _FOREVER if interval.end is None else format_time(interval.end)
    position = Position()
    rows = ledger.iterate_rows(_SELECT_ROLLUPS, (span, begin, end))
    first = next(rows, None)
    if first is not None and first[0] is not None:
        position = Position.parse(str(first[0]))
    groups = (_make_group(interval.begin, row[1:]) for row in itertools.chain([first] if first else [], rows))
    add(pair for group in groups for pair in _list_of_kinds(group, kinds))
    pending = map(_make_pending_group, ledger.iterate_rows(_SELECT_PENDING, (position.change, position.record, begin)))
    current = (group for group in pending if interval.end is None or group.at < interval.end)
    add(pair for group in current for pair in _list_of_kinds(group, kinds))
    return position.record


def _list_of_kinds(group: SpendGroup, kinds: Iterable[CounterKind]) -> Iterator[CounterAmount]:
    for kind in kinds:
        for key in make_keys(kind, group.spender, group.at):
            yield key, group.amount(kind.amount)


def _make_group(at: datetime, row: Sequence[object]) -> SpendGroup:
    spender, (micro, rest, places, micro_2, rest_2, places_2) = row[:5], map(_to_int, row[5:])
    subtotal, surcharge = join_amount(micro, rest, places), join_amount(micro_2, rest_2, places_2)
    return SpendGroup(at, _make_spender(spender), subtotal + surcharge, subtotal)


def _make_pending_group(row: Sequence[object]) -> SpendGroup:
    started_at, *spender = row[:6]
    total, subtotal, settled_subtotal, settled_surcharge = (Decimal(str(value or "0")) for value in row[6:])
    return SpendGroup(
        datetime.fromisoformat(str(started_at)),
        _make_spender(spender),
        total - settled_subtotal - settled_surcharge,
        subtotal - settled_subtotal,
    )


def _make_spender(values: Sequence[object]) -> Spender:
    project, participant, user, issuer, labels = values
    return ledger_records.make_spender((project, participant, user, issuer, None, labels, None, None))


def _list_amounts(group: SpendGroup, kinds: Iterable[CounterKind], now: datetime) -> Iterator[CounterAmount]:
    return _list_of_kinds(group, [kind for kind in kinds if is_current(kind, group.at, now)])


def _to_int(value: object) -> int:
    return int(str(value))
