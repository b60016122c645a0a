"""Sums what each project and caller has spent in the last minute, and notes who has passed a limit.

brake_windows   the USD of each second of the last minute, of those that have a limit
brake_trips     limits that were passed, until a process has made the stop that follows

A record counts at the time of its end.  The sum begins anew with the note, and without the requests that began before
the stop was in effect, so that what led to one stop does not lead to another one after a resume.  Each function is part
of a transaction in which one process alone counts.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tornado_proxy.budgets.counting.ledger_records import RecordGroup
from tornado_proxy.domain.budgets.brake import Brake, BrakeLimits
from tornado_proxy.domain.budgets.counter import Amount, CounterKind, Period, Scope
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect

_WINDOW_S = 60

#: Requests that begin in these seconds after a limit was passed do not count: after them the stop is in effect
#: everywhere.
_STOPPING_S = 5

#: Random bytes of an id.
_ID_BYTES = 12

_CALLER = CounterKind(Scope.PARTICIPANT, Period.TOTAL)

_SELECT = "SELECT spent, counts_from FROM brake_windows WHERE project_id = ? AND subject = ?"
_UPSERT = (
    "INSERT INTO brake_windows (project_id, subject, spent, counts_from, last_second) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (project_id, subject) DO UPDATE SET spent = excluded.spent, counts_from = excluded.counts_from, "
    "last_second = excluded.last_second"
)
_DELETE_OLD = "DELETE FROM brake_windows WHERE last_second < ?"
_INSERT_TRIP = "INSERT INTO brake_trips (id, project_id, participant, spent, usd) VALUES (?, ?, ?, ?, ?)"
_SELECT_TRIPS = "SELECT id, project_id, participant, spent, usd FROM brake_trips"
_DELETE_TRIP = "DELETE FROM brake_trips WHERE id = ?"


def create_brake_tables(sql: Dialect) -> str:
    """Return the SQL that makes the tables that do not exist."""
    return f"""
CREATE TABLE IF NOT EXISTS brake_windows (
    project_id {sql.text} NOT NULL,
    subject {sql.text} NOT NULL,
    spent {sql.text} NOT NULL,
    counts_from {sql.number} NOT NULL,
    last_second {sql.number} NOT NULL,
    PRIMARY KEY (project_id, subject)
) {sql.keyed_table_end};
CREATE TABLE IF NOT EXISTS brake_trips (
    id {sql.text} PRIMARY KEY,
    project_id {sql.text} NOT NULL,
    participant {sql.text},
    spent {sql.text} NOT NULL,
    usd {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


@dataclass(frozen=True, slots=True)
class _Account:
    """Whose spend of a minute is limited; `subject` is "" for a whole project, which has no `participant`."""

    project_id: str
    subject: str
    participant: str | None
    limit: Decimal


@dataclass(frozen=True, slots=True)
class _Spend:
    """The cost of a request, with the seconds in which it began and ended."""

    began: int
    ended: int
    usd: Decimal


def count(db: Database, limits: Mapping[str, BrakeLimits], groups: Iterable[RecordGroup], now: datetime) -> bool:
    """Add what records have cost; return True if a limit is passed, which list_trips() then returns.

    The records of a group began and ended in the same seconds.
    """
    now_s = int(now.timestamp())
    added: dict[_Account, list[_Spend]] = defaultdict(list)
    for group in groups:
        limit = limits.get(group.spender.project_id)
        # Another node's clock can be ahead.
        ended = now_s if group.ended is None else min(int(group.ended.timestamp()), now_s)
        if limit and ended > now_s - _WINDOW_S and (usd := group.sum(Amount.TOTAL)):
            for account in _list_accounts(group.spender, limit):
                added[account].append(_Spend(int(group.began.timestamp()), ended, usd))
    trips = [_add(db, account, spends, now_s) for account, spends in added.items()]
    return any(trips)


def list_trips(db: Database) -> list[Brake]:
    """Return the limits that were passed and whose stop was not made yet."""
    return [
        Brake(
            str(trip_id),
            str(project_id),
            None if participant is None else str(participant),
            Decimal(str(spent)),
            Decimal(str(limit)),
        )
        for trip_id, project_id, participant, spent, limit in db.fetch_rows(_SELECT_TRIPS)
    ]


def forget_trip(db: Database, trip_id: str) -> None:
    """Delete the note of a limit whose stop was made."""
    db.run(_DELETE_TRIP, (trip_id,))


def forget_old(db: Database, now: datetime) -> None:
    """Delete the sums of those who have spent nothing in the last minute."""
    db.run(_DELETE_OLD, (int((now - timedelta(seconds=_WINDOW_S)).timestamp()),))


def _list_accounts(spender: Spender, limits: BrakeLimits) -> Iterable[_Account]:
    if limits.project is not None:
        yield _Account(spender.project_id, "", None, limits.project)
    subject = spender.subject(_CALLER)
    if limits.per_participant is not None and subject is not None:
        yield _Account(spender.project_id, subject, spender.participant or spender.user, limits.per_participant)


def _add(db: Database, account: _Account, added: Iterable[_Spend], now_s: int) -> bool:
    """Add to the spend of an account in the last minute; return True if its limit is passed."""
    key = (account.project_id, account.subject)
    rows = db.fetch_rows(_SELECT, key)
    known, counts_from = (json.loads(str(rows[0][0])), int(str(rows[0][1]))) if rows else ([], 0)
    spent: dict[int, Decimal] = defaultdict(Decimal)
    for second, usd in known:
        if second > now_s - _WINDOW_S:
            spent[second] += Decimal(usd)
    for spend in added:
        if spend.began >= counts_from:
            spent[spend.ended] += spend.usd
    total = sum(spent.values(), Decimal(0))
    is_passed = total > account.limit
    if is_passed:
        values = (account.project_id, account.participant, f"{total:f}", f"{account.limit:f}")
        db.run(_INSERT_TRIP, (os.urandom(_ID_BYTES).hex(), *values))
        spent, counts_from = {}, now_s + _STOPPING_S
    encoded = json.dumps([[second, f"{usd:f}"] for second, usd in sorted(spent.items())], separators=(",", ":"))
    db.run(_UPSERT, (*key, encoded, counts_from, now_s))
    return is_passed
