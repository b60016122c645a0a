"""Reads and changes counters within a transaction of the budgets' database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from tornado_proxy.budgets.counting.cursor import SELECT_BOTH, make_position, read_position
from tornado_proxy.budgets.periods import find_interval, has_begun
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import (
    TOKEN_TOTAL,
    CounterKind,
    CounterState,
    Interval,
    decode_kind,
    encode_kind,
)
from tornado_proxy.domain.budgets.reservation import BudgetedSpender
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.ledger.changes import Position
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Insert
from tornado_proxy.ledger.rows import format_time

#: The columns of CounterKey.values, those of all of its members, and the condition of a row with its values.
KEY_COLUMNS = "kind, project_id, subject, period_begin"
COLUMNS = f"{KEY_COLUMNS}, period_end"
HAS_KEY = "kind = ? AND project_id = ? AND subject = ? AND period_begin = ?"

_SELECT = f"SELECT settled, reserved FROM budget_counters WHERE {HAS_KEY}"  # noqa: S608  # names of ours
_INSERT = (
    f"INSERT INTO budget_counters ({COLUMNS}, settled, reserved) "  # noqa: S608  # names of ours
    "VALUES (?, ?, ?, ?, ?, '0', '0') ON CONFLICT DO NOTHING"
)
_WRITE_SETTLED = Insert(
    "budget_counters",
    (*COLUMNS.split(", "), "settled", "reserved"),
    KEY_COLUMNS,
    update="settled = excluded.settled",
)
_UPDATE = f"UPDATE budget_counters SET settled = ?, reserved = ? WHERE {HAS_KEY}"  # noqa: S608  # names of ours
_SELECT_ALL = f"SELECT {COLUMNS}, settled, reserved FROM budget_counters"  # noqa: S608  # names of ours
_SELECT_STATED = f"{_SELECT_ALL} WHERE kind = ? AND subject IN (SELECT token_id FROM token_budgets)"  # noqa: S608  # names of ours
# Callers choose their agent sessions and tokens: there can be millions of counters.
_SELECT_HIGHEST = (
    f"SELECT {COLUMNS}, settled, reserved FROM ("  # noqa: S608  # names of ours
    f"SELECT {COLUMNS}, settled, reserved, ROW_NUMBER() OVER (PARTITION BY project_id "
    "ORDER BY CAST(settled AS NUMERIC) + CAST(reserved AS NUMERIC) DESC, subject) AS place "
    "FROM budget_counters WHERE kind = ? AND (period_end IS NULL OR period_end > ?)) AS ranked WHERE place <= ?"
)
_SELECT_OF_SUBJECT = f"{_SELECT_ALL} WHERE kind = ? AND project_id = ? AND subject = ?"


#: Counters of a kind and project that lists have: those with the highest figures.
MAX_LISTED = 1000

#: Counters that are read at once, some 100 KB, and whose warnings one transaction claims.
PAGE_SIZE = 500

# Both databases compare the texts as numbers; SQLite as floats, which never makes a larger one the smaller.
_SELECT_SPENT = (
    f"SELECT {COLUMNS}, settled FROM budget_counters "  # noqa: S608  # names of ours
    "WHERE kind = ? AND (project_id, subject, period_begin) > (?, ?, ?) AND (period_end IS NULL OR period_end > ?) "
    "AND CAST(settled AS NUMERIC) >= CAST(? AS NUMERIC) {condition} "
    "ORDER BY project_id, subject, period_begin LIMIT ?"
)
# `||`: else SQLite looks up the kinds alone, and reads all of their counters for each page.
_IS_CURRENT = "kind || '' IN ({kinds}) AND period_begin <= ? AND (period_end IS NULL OR period_end > ?)"
# One statement, so that the counters and the position belong together.
_SELECT_PAGE = (
    f"SELECT {COLUMNS}, settled, {SELECT_BOTH} FROM budget_counters "  # noqa: S608  # names of ours
    f"WHERE ({KEY_COLUMNS}) > (?, ?, ?, ?) AND {_IS_CURRENT} ORDER BY {KEY_COLUMNS} LIMIT ?"
)
_SELECT_RANGE = (
    f"SELECT {COLUMNS}, settled FROM budget_counters "  # noqa: S608  # names of ours
    f"WHERE ({KEY_COLUMNS}) >= (?, ?, ?, ?) AND ({KEY_COLUMNS}) <= (?, ?, ?, ?) AND {_IS_CURRENT}"
)
_OF_STATED = "AND subject IN (SELECT token_id FROM token_budgets)"

#: Entries of each cache; one takes some 500 bytes.
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True, order=True)
class CounterKey:
    """The key of a counter.  Sorted, so that transactions lock counters in one order and never wait in a circle."""

    kind: str
    project_id: str
    subject: str
    period_begin: str
    period_end: str | None = field(default=None, compare=False)

    @property
    def values(self) -> tuple[str, str, str, str]:
        """The values of the table's primary key."""
        return self.kind, self.project_id, self.subject, self.period_begin


#: A key before all others of its kind.
FIRST_KEY = CounterKey("", "", "", "")

Counters = Mapping[CounterKey, CounterState]


def make_keys(kind: CounterKind, spender: Spender, at: datetime) -> list[CounterKey]:
    """Return the keys of the counters of `kind` that count a spender's requests of `at`."""
    if not has_begun(kind, at):
        return []
    return [make_key(kind, spender.project_id, subject, at) for subject in spender.subjects(kind)]


def key_budgets(budgeted: BudgetedSpender, at: datetime) -> Iterator[tuple[CounterKey, Budget]]:
    """Yield the counter that each budget of a request of `at` limits.

    A budget whose subject the request has not, or that has not begun, limits none.
    """
    spender = budgeted.spender
    for budget in budgeted.budgets:
        subject = spender.subject(budget.kind) if budget.subject is None else budget.subject
        if subject is not None and has_begun(budget.kind, at):
            yield make_key(budget.kind, spender.project_id, subject, at), budget


def make_key(kind: CounterKind, project_id: str, subject: str, at: datetime) -> CounterKey:
    """Return the key of the counter of a subject for the period that contains `at`."""
    kind_text, begin, end = _encode_period(kind, at.replace(minute=0, second=0, microsecond=0))
    return CounterKey(kind_text, project_id, subject, begin, end)


# The three are called for each request, with few different arguments: without caches they are half of a budget's cost.


@lru_cache(_CACHE_SIZE)
def _encode_period(kind: CounterKind, hour: datetime) -> tuple[str, str, str | None]:
    """Return a kind and its period's begin and end as text; every period begins with an hour."""
    interval = find_interval(kind.period, kind.start, hour)
    end = None if interval.end is None else format_time(interval.end)
    return encode_kind(kind), format_time(interval.begin), end


@lru_cache(_CACHE_SIZE)
def encode_keys(keys: tuple[CounterKey, ...]) -> str:
    """Return the text form of keys."""
    return json.dumps([[*key.values, key.period_end] for key in keys], separators=(",", ":"))


@lru_cache(_CACHE_SIZE)
def decode_keys(text: str) -> tuple[CounterKey, ...]:
    """Return the keys of their text form."""
    return tuple(CounterKey(*values) for values in json.loads(text))


class CounterChanges:
    """Changes of counters that one transaction makes."""

    def __init__(self) -> None:
        self._settled: defaultdict[CounterKey, Decimal] = defaultdict(Decimal)
        self._reserved: defaultdict[CounterKey, Decimal] = defaultdict(Decimal)

    def settle(self, key: CounterKey, amount: Decimal) -> None:
        """Add `amount` to what requests have cost."""
        self._settled[key] += amount

    def reserve(self, key: CounterKey, amount: Decimal) -> None:
        """Add `amount`, negative to free it, to what requests under way can cost."""
        self._reserved[key] += amount

    def free(self, keys: str, total: Decimal, subtotal: Decimal) -> None:
        """Free a reservation of these amounts on the counters `keys`, in their text form."""
        for key in decode_keys(keys):
            self.reserve(key, -decode_kind(key.kind).amount.choose(total, subtotal))

    def apply(self, db: Database, row_lock: str) -> dict[CounterKey, Decimal]:
        """Write the changes; return the new spend of each counter that has settled requests."""
        now_settled = {}
        for key in sorted({*self._settled, *self._reserved}):
            settled, reserved = lock_counter(db, row_lock, key)
            if self._settled[key] > 0:
                now_settled[key] = settled + self._settled[key]
            write_counter(db, key, settled + self._settled[key], reserved + self._reserved[key])
        return now_settled


def lock_counter(db: Database, row_lock: str, key: CounterKey) -> tuple[Decimal, Decimal]:
    """Return settled and reserved USD of a counter, which is made if it is new, and lock it."""
    sql = f"{_SELECT} {row_lock}"
    rows = db.fetch_rows(sql, key.values)
    if not rows:
        db.run(_INSERT, (*key.values, key.period_end))
        rows = db.fetch_rows(sql, key.values)
    ((settled, reserved),) = rows
    return Decimal(str(settled)), Decimal(str(reserved))


def write_counter(db: Database, key: CounterKey, settled: Decimal, reserved: Decimal) -> None:
    """Write a counter that is locked."""
    db.run(_UPDATE, (f"{settled:f}", f"{reserved:f}", *key.values))


def read_counters(db: Database) -> Counters:
    """Return all counters."""
    return _make_counters(db.fetch_rows(_SELECT_ALL))


def read_limited_counters(db: Database, limits: BudgetLimits, now: datetime) -> Counters:
    """Return the counters of current periods that budgets limit, MAX_LISTED of each kind and project.

    Those are the ones with the highest figures, and beside them the tokens that state a budget and the subjects whose
    limit was changed.  Counters of other kinds, which budgets of the past needed, can be many.
    """
    rows = db.fetch_rows(_SELECT_STATED, (encode_kind(TOKEN_TOTAL),))
    for kind in limits.list_kinds():
        rows += db.fetch_rows(_SELECT_HIGHEST, (encode_kind(kind), format_time(now), MAX_LISTED))
    for project_id, changes in limits.changes.items():
        for change in changes:
            if change.subject is not None:
                rows += db.fetch_rows(_SELECT_OF_SUBJECT, (encode_kind(change.kind), project_id, change.subject))
    return _make_counters(rows)


def read_spent(
    db: Database, kind: CounterKind, least: Decimal | None, now: datetime, after: CounterKey
) -> tuple[dict[CounterKey, Decimal], CounterKey | None]:
    """Return the spend of some counters of current periods, and their last key, None if no others follow.

    Args:
        db: The budgets' database.
        kind: The kind of the counters.
        least: The spend that they have at least; None for all counters of tokens that state a budget.
        now: The time whose periods are the current ones.
        after: The key that the counters follow.
    """
    sql = _SELECT_SPENT.format(condition=_OF_STATED if least is None else "")
    values = (encode_kind(kind), *after.values[1:], format_time(now), f"{least or 0:f}", PAGE_SIZE)
    rows = db.fetch_rows(sql, values)
    spent = _make_spent(rows)
    return spent, next(reversed(spent)) if len(spent) == PAGE_SIZE else None


def read_page(
    db: Database, kinds: Sequence[CounterKind], after: CounterKey, now: datetime, limit: int
) -> tuple[dict[CounterKey, Decimal], Position]:
    """Return the spend of up to `limit` counters of current periods that follow a key, and how far they are counted."""
    at = format_time(now)
    sql = _SELECT_PAGE.format(kinds=", ".join("?" * len(kinds)))
    rows = db.fetch_rows(sql, (*after.values, *map(encode_kind, kinds), at, at, limit))
    return _make_spent(rows), make_position(*rows[0][6:]) if rows else read_position(db)


def read_settled(
    db: Database, kinds: Sequence[CounterKind], ends: tuple[CounterKey, CounterKey], now: datetime
) -> dict[CounterKey, Decimal]:
    """Return the spend of the counters of current periods from a key up to another one."""
    at = format_time(now)
    sql = _SELECT_RANGE.format(kinds=", ".join("?" * len(kinds)))
    return _make_spent(db.fetch_rows(sql, (*ends[0].values, *ends[1].values, *map(encode_kind, kinds), at, at)))


def write_settled(db: Database, settled: Mapping[CounterKey, Decimal]) -> None:
    """Write the spend of counters, which are made if they are new, in a transaction that alone counts.

    A few statements for all of them: others wait for it, and CounterChanges would take three for each.
    """
    rows = [(*key.values, key.period_end, f"{settled[key]:f}", "0") for key in sorted(settled)]
    db.insert(_WRITE_SETTLED, rows)


def _make_spent(rows: Iterable[tuple[object, ...]]) -> dict[CounterKey, Decimal]:
    return {CounterKey(*row[:5]): Decimal(str(row[5])) for row in rows}  # type: ignore[arg-type]  # text


def read_own_counters(db: Database, kind: CounterKind, project_id: str, subject: str) -> Counters:
    """Return the counters of a subject in all periods."""
    return _make_counters(db.fetch_rows(_SELECT_OF_SUBJECT, (encode_kind(kind), project_id, subject)))


def _make_counters(rows: Iterable[tuple[object, ...]]) -> Counters:
    keyed = ((CounterKey(*row[:5]), row[5:]) for row in rows)  # type: ignore[arg-type]  # text
    return {key: make_state(key, key.period_end, *amounts) for key, amounts in keyed}


def make_state(key: CounterKey, period_end: object, settled: object, reserved: object) -> CounterState:
    """Return the state of a counter from the values of its row."""
    return CounterState(
        decode_kind(key.kind),
        key.project_id,
        key.subject,
        _make_interval(key.period_begin, None if period_end is None else str(period_end)),
        Decimal(str(settled)),
        Decimal(str(reserved)),
    )


@lru_cache(_CACHE_SIZE)
def _make_interval(begin: str, end: str | None) -> Interval:
    return Interval(datetime.fromisoformat(begin), None if end is None else datetime.fromisoformat(end))


def key_of_state(state: CounterState) -> CounterKey:
    """Return the key of a counter."""
    end = None if state.interval.end is None else format_time(state.interval.end)
    return CounterKey(encode_kind(state.kind), state.project_id, state.subject, format_time(state.interval.begin), end)


def sum_by_key(amounts: Iterable[tuple[CounterKey, Decimal]]) -> Mapping[CounterKey, Decimal]:
    """Return the sum of the amounts of each key."""
    sums: defaultdict[CounterKey, Decimal] = defaultdict(Decimal)
    for key, amount in amounts:
        sums[key] += amount
    return sums
