"""Reports of budgets: each counter with its limit, and where the limit comes from.  Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tornado_proxy.budgets.counting.counters import key_of_state
from tornado_proxy.budgets.open_reservations import CounterReservations, ReservationsByCounter
from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.domain.budgets.budget import BudgetChange, TokenBudget
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, CounterKind, CounterState, Scope
from tornado_proxy.domain.text import format_sum


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """The counters of a ledger, their reservations that are not freed, and the budgets that valid tokens state."""

    counters: Sequence[CounterState] = ()
    reservations: ReservationsByCounter = field(default_factory=dict)
    stated: Sequence[TokenBudget] = ()


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """A budget of one subject in the current period, in USD.

    Attributes:
        limit: The limit in force; None if the budget is lifted.
        configured: The limit of the configuration, or that its token states.
        strict: True if a budget of this kind never exceeds its limit.
        change: The change that replaces `configured`; None if that is in force.
        stated: The budget that a token states; None for a budget of the configuration alone.
        reserved: The most that requests under way can cost.
        held: The most that requests can cost whose cost is not known, or comes later.
        reservations: The reservations of the counter.
    """

    state: CounterState
    limit: Decimal | None
    configured: Decimal
    strict: bool
    change: BudgetChange | None
    stated: TokenBudget | None
    reserved: Decimal
    held: Decimal
    reservations: CounterReservations

    @property
    def end(self) -> datetime | None:
        """When the budget ends: that of its period, or of its token; None if it never does."""
        return self.state.interval.end if self.stated is None else self.stated.expires_at


def list_rows(
    limits: BudgetLimits, figures: BudgetFigures, now: datetime, project_id: str | None = None
) -> list[BudgetRow]:
    """Return the budgets of all projects, or of one: one for each project, and each subject that has a counter.

    Tokens that state a budget come after those of the configuration.
    """
    limits = limits.state(figures.stated)
    counters: defaultdict[tuple[str, CounterKind], list[CounterState]] = defaultdict(list)
    for state in figures.counters:
        counters[state.project_id, state.kind].append(state)
    return [
        _make_row(limits, state, figures.reservations, now)
        for project, budgets in limits.budgets.items()
        if project_id in (None, project)
        for kind in dict.fromkeys((*(budget.kind for budget in budgets), TOKEN_TOTAL))
        for state in _list_states(project, kind, counters[project, kind], limits, now)
    ]


def _list_states(
    project_id: str, kind: CounterKind, counters: Iterable[CounterState], limits: BudgetLimits, now: datetime
) -> Iterator[CounterState]:
    """Yield the counters of the current period that have a limit, also those of subjects that have spent nothing."""
    interval = find_interval(kind.period, kind.start, now)
    current = {state.subject: state for state in counters if state.interval.begin == interval.begin}
    changed = (change for change in limits.changes.get(project_id, ()) if change.kind == kind)
    expected = [*([""] if kind.scope is Scope.PROJECT else []), *(c.subject for c in changed if c.subject is not None)]
    stated = limits.stated.get(project_id, {}) if kind == TOKEN_TOTAL else ()
    for subject in sorted({*current, *expected, *stated}):
        if limits.find_configured(project_id, kind, subject) is not None:
            yield current.get(subject) or CounterState(kind, project_id, subject, interval, Decimal(0), Decimal(0))


def _make_row(
    limits: BudgetLimits, state: CounterState, reservations: ReservationsByCounter, now: datetime
) -> BudgetRow:
    project_id, kind, subject = state.project_id, state.kind, state.subject
    stated = limits.find_stated(project_id, kind, subject)
    is_strict = any(budget.strict for budget in limits.budgets[project_id] if budget.kind == kind)
    configured = limits.find_configured(project_id, kind, subject)
    assert configured is not None, "only counters with a limit are listed"
    own = reservations.get(key_of_state(state).values, CounterReservations())
    return BudgetRow(
        state,
        limits.find_limit(project_id, kind, subject, now),
        configured,
        is_strict and (stated is None or not stated.is_narrowed),
        limits.find_change(project_id, kind, subject, now),
        stated,
        state.reserved - own.held,
        own.held,
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
        "end": _show_time(row.end),
        "limit": None if row.limit is None else format_sum(row.limit),
        "configured_limit": format_sum(row.configured),
        "source": "state" if change is not None else find_origin(row),
        "until": None if change is None else _show_time(change.until),
        "changed_by": None if change is None else change.actor,
        "holder": None if row.stated is None else row.stated.participant,
        "settled": format_sum(state.settled),
        "reserved": format_sum(row.reserved),
        "held": format_sum(row.held),
    }


def find_origin(row: BudgetRow) -> str:
    """Return where the limit comes from that no change has replaced: `configuration` or `token`."""
    return "configuration" if row.stated is None or row.stated.limit > row.configured else "token"


def describe_subject(row: BudgetRow) -> str:
    """Return whose budget it is, empty for the project: its subject, and the participant that a token names."""
    holder = None if row.stated is None else row.stated.participant
    return row.state.subject if holder is None else f"{row.state.subject} of {holder}"


def show_rows(rows: Iterable[BudgetRow]) -> dict[str, object]:
    """Return the JSON document of budgets."""
    return {"budgets": [show_row(row) for row in rows]}


def show_reservations(row: BudgetRow, now: datetime) -> list[dict[str, object]]:
    """Return the JSON documents of the oldest reservations of a budget, with their ages in seconds."""
    return [
        {
            "request_id": entry.request_id,
            "state": entry.state,
            "usd": format_sum(entry.amount(row.state.kind.amount)),
            "started_at": _show_time(entry.started_at),
            "age_s": max(0, round((now - entry.started_at).total_seconds())),
        }
        for entry in row.reservations.oldest
    ]


def show_other_reservations(row: BudgetRow) -> dict[str, object]:
    """Return the JSON document of the reservations that show_reservations() does not list: their number and sum."""
    return {"count": row.reservations.others, "usd": format_sum(row.reservations.others_usd)}


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
