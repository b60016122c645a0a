"""Reports of budgets: each counter with its limit, and where the limit comes from.  Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counters import key_of_state
from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.budgets.store import OpenReservation
from tornado_proxy.domain.budget import (
    BudgetChange,
    BudgetLimits,
    CounterKind,
    CounterState,
    Scope,
)


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """The counters of a ledger, and the reservations that are not freed."""

    counters: Sequence[CounterState] = ()
    reservations: Sequence[OpenReservation] = ()


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A budget of one subject in the current period, in USD.

    Attributes:
        configured: The limit of the configuration.
        strict: True if a budget of this kind never exceeds its limit.
        change: The change that replaces the limit of the configuration; None if that is in force.
        reserved: The most that requests under way can cost.
        held: The most that requests can cost whose cost is not known, or comes later.
        reservations: The reservations of the counter, oldest first.
    """

    state: CounterState
    configured: Decimal
    strict: bool
    change: BudgetChange | None
    reserved: Decimal
    held: Decimal
    reservations: tuple[OpenReservation, ...]

    @property
    def limit(self) -> Decimal | None:
        """The limit in force, None if the budget is lifted."""
        return self.configured if self.change is None else self.change.limit


def list_rows(
    limits: BudgetLimits, figures: BudgetFigures, now: datetime, project_id: str | None = None
) -> list[BudgetRow]:
    """Return the budgets of all projects, or of one: one for each project, and each subject that has a counter."""
    counters: defaultdict[tuple[str, CounterKind], list[CounterState]] = defaultdict(list)
    for state in figures.counters:
        counters[state.project_id, state.kind].append(state)
    reservations = _group_by_counter(figures.reservations)
    return [
        _make_row(limits, state, reservations, now)
        for project, budgets in limits.budgets.items()
        if project_id in (None, project)
        for kind in dict.fromkeys(budget.kind for budget in budgets)
        for state in _list_states(project, kind, counters[project, kind], limits, now)
    ]


def _list_states(
    project_id: str, kind: CounterKind, counters: Iterable[CounterState], limits: BudgetLimits, now: datetime
) -> Iterator[CounterState]:
    """Yield the counters of the current period, also those of subjects that have spent nothing."""
    interval = find_interval(kind.period, kind.start, now)
    current = {state.subject: state for state in counters if state.interval.begin == interval.begin}
    changed = (change for change in limits.changes.get(project_id, ()) if change.kind == kind)
    expected = [*([""] if kind.scope is Scope.PROJECT else []), *(c.subject for c in changed if c.subject is not None)]
    for subject in sorted({*current, *expected}):
        yield current.get(subject) or CounterState(kind, project_id, subject, interval, Decimal(0), Decimal(0))


_Reservations = Mapping[tuple[str, str, str, str], Sequence[OpenReservation]]


def _group_by_counter(reservations: Iterable[OpenReservation]) -> _Reservations:
    grouped: defaultdict[tuple[str, str, str, str], list[OpenReservation]] = defaultdict(list)
    for reservation in reservations:
        for key in reservation.counters:
            grouped[key.values].append(reservation)
    return grouped


def _make_row(limits: BudgetLimits, state: CounterState, reservations: _Reservations, now: datetime) -> BudgetRow:
    budgets = [budget for budget in limits.budgets[state.project_id] if budget.kind == state.kind]
    own = tuple(reservations.get(key_of_state(state).values, ()))
    held = sum((entry.amount(state.kind.amount) for entry in own if entry.state != "open"), Decimal(0))
    return BudgetRow(
        state,
        min(budget.limit for budget in budgets),
        any(budget.strict for budget in budgets),
        limits.find_change(state.project_id, state.kind, state.subject, now),
        state.reserved - held,
        held,
        own,
    )


def show_row(row: BudgetRow) -> dict[str, object]:
    """Return the JSON document of a budget."""
    state, kind, change = row.state, row.state.kind, row.change
    return {
        "project": state.project_id,
        "per": kind.scope.value,
        **_show_subject(kind, state.subject),
        "period": kind.period.value,
        "of": kind.amount.value,
        "strict": row.strict,
        "start": _show_time(state.interval.begin),
        "end": _show_time(state.interval.end),
        "limit": None if row.limit is None else _show_usd(row.limit),
        "configured_limit": _show_usd(row.configured),
        "source": "configuration" if change is None else "state",
        "until": None if change is None else _show_time(change.until),
        "changed_by": None if change is None else change.actor,
        "settled": _show_usd(state.settled),
        "reserved": _show_usd(row.reserved),
        "held": _show_usd(row.held),
    }


def show_rows(rows: Iterable[BudgetRow]) -> dict[str, object]:
    """Return the JSON document of budgets."""
    return {"budgets": [show_row(row) for row in rows]}


def show_reservations(row: BudgetRow, now: datetime) -> list[dict[str, object]]:
    """Return the JSON documents of the reservations of a budget, with their ages in seconds."""
    return [
        {
            "request_id": entry.request_id,
            "state": entry.state,
            "usd": _show_usd(entry.amount(row.state.kind.amount)),
            "started_at": _show_time(entry.started_at),
            "age_s": max(0, round((now - entry.started_at).total_seconds())),
        }
        for entry in row.reservations
    ]


def _show_subject(kind: CounterKind, subject: str) -> dict[str, object]:
    """Return the members that name a subject; Spender.subject() makes its text."""
    members: dict[str, object] = dict.fromkeys(
        ("participant", "user", "issuer", "access_key", "token", "agent_session", "label", "value")
    )
    members["label"] = kind.label
    match kind.scope:
        case Scope.PROJECT:
            pass
        case Scope.ACCESS_KEY | Scope.TOKEN | Scope.AGENT_SESSION:
            members[kind.scope.value] = subject
        case Scope.LABEL:
            members["value"] = subject
        case Scope.PARTICIPANT | Scope.USER if subject.startswith("participant "):
            members["participant"] = subject.removeprefix("participant ")
        case Scope.PARTICIPANT | Scope.USER:
            user, _, issuer = subject.removeprefix("user ").rpartition(" ")
            # An issuer is a URL; a user's id can contain spaces.
            members |= {"user": user, "issuer": issuer} if "://" in issuer else {"user": subject.removeprefix("user ")}
    return members


def _show_time(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _show_usd(amount: Decimal) -> str:
    """Return an amount exactly, without final zeros: sums of them have many."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
