"""Budgets as values: what a counter sums, the limit of a budget, and the spender that a request is charged to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

import msgspec

from tornado_proxy.domain.brake import BrakeLimits
from tornado_proxy.domain.cost import CostBound
from tornado_proxy.domain.rate import RateClaim, RateRefusal


class Period(StrEnum):
    """The time after which a counter starts anew, in UTC."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    TOTAL = "total"


class Scope(StrEnum):
    """Whose spend a counter sums, within a project."""

    PROJECT = "project"
    PARTICIPANT = "participant"
    USER = "user"
    ACCESS_KEY = "access_key"
    #: A participant token, with all tokens that were narrowed from it.
    TOKEN = "token"  # noqa: S105  (no secret)
    #: The session of an agent, as its client states it.
    AGENT_SESSION = "agent_session"
    LABEL = "label"


class Amount(StrEnum):
    """The amount of a record that a counter sums: with or without the surcharge."""

    TOTAL = "total"
    SUBTOTAL = "subtotal"

    def choose(self, total: Decimal, subtotal: Decimal) -> Decimal:
        """Return the one of both that is this amount."""
        return total if self is Amount.TOTAL else subtotal


@dataclass(frozen=True, slots=True)
class Interval:
    """A period of time from `begin` (inclusive) to `end` (exclusive), aware UTC; None if it has no end."""

    begin: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class CounterKind:
    """A kind of counter: each project has one for each subject of `scope` and for each period.

    Attributes:
        start: A day on which a period begins; None for Monday, the first of the month, and the first of January.
        label: The name of the label whose values are the subjects, if `scope` is LABEL.
    """

    scope: Scope
    period: Period
    amount: Amount = Amount.TOTAL
    start: date | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class CounterPlan:
    """The needs of a configuration's budgets.

    `hold` is True if a request of unknown cost counts, until its period ends, at the most that it can have cost.
    `rates` is True if projects have limits of requests, tokens or streams.  `brakes` are the limits of the spend of
    projects in a minute, by project id.
    """

    kinds: tuple[CounterKind, ...] = ()
    hold: bool = True
    rates: bool = False
    brakes: Mapping[str, BrakeLimits] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return True if anything is counted."""
        return bool(self.kinds or self.rates or self.brakes)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in USD for each counter of a kind, or for that of one `subject`.

    A strict budget admits a request only if the most that it can cost fits; any other one admits requests until its
    limit is reached, so that the last one can exceed it.
    """

    kind: CounterKind
    limit: Decimal
    strict: bool = False
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """Another limit of a budget, set while the server runs; it replaces that of the configuration.

    Attributes:
        subject: The subject of the counter that it concerns, None for those of all subjects.
        limit: The limit in USD; None if the budget is lifted.
        until: When the limit of the configuration is in force again, aware UTC; None if it never is.
        changed_at: When the change was made, aware UTC, and `actor` who made it.
    """

    project_id: str
    kind: CounterKind
    subject: str | None
    limit: Decimal | None
    until: datetime | None
    changed_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The budget that a participant token states for all of its requests.

    Attributes:
        token_ids: The ids of the token and of those that it was narrowed from, its own last.
        participant: The participant that the token names.
        limit: The limit in USD.
        expires_at: When the token expires, aware UTC; None if it never does.
    """

    project_id: str
    token_ids: tuple[str, ...]
    participant: str | None
    limit: Decimal
    expires_at: datetime | None

    @property
    def token_id(self) -> str:
        """The id of the token, which is the subject of its counter."""
        return self.token_ids[-1]

    @property
    def is_narrowed(self) -> bool:
        """True if the token was narrowed from another one, which budgets per token limit in its place."""
        return len(self.token_ids) > 1


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The limits of all projects' budgets: those that are configured or stated by tokens, and their changes.

    Attributes:
        budgets: The budgets of each project in the configuration, by project id.
        changes: The changes of each project's budgets, by project id.
        stated: The budgets that tokens state, by project id and token id.
    """

    budgets: Mapping[str, Sequence[Budget]] = field(default_factory=dict)
    changes: Mapping[str, Sequence[BudgetChange]] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, TokenBudget]] = field(default_factory=dict)

    def list_kinds(self) -> list[CounterKind]:
        """Return the kinds of the configured budgets."""
        return list(dict.fromkeys(budget.kind for budgets in self.budgets.values() for budget in budgets))

    def find_lowest(self, kind: CounterKind) -> Decimal | None:
        """Return the lowest limit of a kind above 0, configured or changed, of all projects; None if it has none."""
        limits = [budget.limit for budgets in self.budgets.values() for budget in budgets if budget.kind == kind]
        changed = [change.limit for changes in self.changes.values() for change in changes if change.kind == kind]
        return min((limit for limit in (*limits, *changed) if limit), default=None)

    def state(self, budgets: Iterable[TokenBudget]) -> BudgetLimits:
        """Return these limits, with the budgets that tokens state."""
        stated: dict[str, dict[str, TokenBudget]] = {}
        for budget in budgets:
            stated.setdefault(budget.project_id, {})[budget.token_id] = budget
        return replace(self, stated=stated)

    def find_stated(self, project_id: str, kind: CounterKind, subject: str | None) -> TokenBudget | None:
        """Return the budget that a token states for a counter."""
        return self.stated.get(project_id, {}).get(subject or "") if kind == TOKEN_TOTAL else None

    def find_change(self, project_id: str, kind: CounterKind, subject: str | None, at: datetime) -> BudgetChange | None:
        """Return the change that is in force for a subject: its own, else that of all subjects."""
        in_force = self._list_in_force(project_id, kind, at)
        stated = self.find_stated(project_id, kind, subject)
        of_all = in_force.get(None) if stated is None or not stated.is_narrowed else None
        return in_force.get(subject) or of_all

    def find_configured(self, project_id: str, kind: CounterKind, subject: str) -> Decimal | None:
        """Return the lowest limit of a counter that is configured or stated by its token; None if it has none."""
        stated = self.find_stated(project_id, kind, subject)
        return _find_lowest(self._list_configured(project_id, kind, stated), stated)

    def find_limit(self, project_id: str, kind: CounterKind, subject: str, at: datetime) -> Decimal | None:
        """Return the lowest limit of a counter in USD that is in force; None if it has none."""
        stated = self.find_stated(project_id, kind, subject)
        configured = self._list_configured(project_id, kind, stated)
        changes = self._list_in_force(project_id, kind, at) if configured or stated else {}
        if subject in changes:
            return changes[subject].limit
        if None in changes and configured:
            # It leaves the limit that a token states.
            limit = changes[None].limit
            configured = [] if limit is None else [limit]
        return _find_lowest(configured, stated)

    def _list_configured(self, project_id: str, kind: CounterKind, stated: TokenBudget | None) -> list[Decimal]:
        if stated is not None and stated.is_narrowed:
            return []
        return [budget.limit for budget in self.budgets.get(project_id, ()) if budget.kind == kind]

    def apply_changes(self, budgets: tuple[Budget, ...], spender: Spender, at: datetime) -> tuple[Budget, ...]:
        """Return the budgets of a spender's requests, with the limits in force and without those that are lifted."""
        if not self.changes.get(spender.project_id):
            return budgets
        changed = []
        for budget in budgets:
            in_force = self._list_in_force(spender.project_id, budget.kind, at)
            if budget.subject is None:
                change = in_force.get(spender.subject(budget.kind)) or in_force.get(None)
            else:
                change = in_force.get(budget.subject)
            if change is None:
                changed.append(budget)
            elif change.limit is not None:
                changed.append(replace(budget, limit=change.limit))
        return tuple(changed)

    def _list_in_force(self, project_id: str, kind: CounterKind, at: datetime) -> dict[str | None, BudgetChange]:
        """Return the changes of a budget that are in force, by subject."""
        return {
            change.subject: change
            for change in self.changes.get(project_id, ())
            if change.kind == kind and (change.until is None or at < change.until)
        }


def _find_lowest(limits: Sequence[Decimal], stated: TokenBudget | None) -> Decimal | None:
    return min([*limits, *([] if stated is None else [stated.limit])], default=None)


def encode_kind(kind: CounterKind) -> str:
    """Return the text form of a kind, which tables hold."""
    start = "" if kind.start is None else kind.start.isoformat()
    return json.dumps([kind.scope, kind.period, kind.amount, start, kind.label or ""], separators=(",", ":"))


@lru_cache(1024)
def decode_kind(text: str) -> CounterKind:
    """Return the kind of its text form."""
    scope, period, amount, start, label = json.loads(text)
    return CounterKind(
        Scope(scope), Period(period), Amount(amount), date.fromisoformat(start) if start else None, label or None
    )


class Spender(msgspec.Struct, frozen=True):
    """Whom a request is charged to, as its record states it.

    `token_ids` are the ids of the request's participant token and of those that it was narrowed from, the first one
    that of the token which an API key signed.
    """

    project_id: str
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    credential_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    token_ids: tuple[str, ...] = ()
    agent_session: str | None = None

    def subjects(self, kind: CounterKind) -> tuple[str, ...]:
        """Return the subjects of all counters of `kind` that count this spender."""
        if kind.scope is Scope.TOKEN:
            return self.token_ids
        subject = self.subject(kind)
        return () if subject is None else (subject,)

    def subject(self, kind: CounterKind) -> str | None:
        """Return the subject of the counter of `kind` that a budget of all subjects limits; None if none does.

        A narrowed token counts for the token that it was made from: its holder can make any number of them.
        """
        match kind.scope:
            case Scope.PROJECT:
                return ""
            case Scope.PARTICIPANT:
                # A participant and a user of one name are two callers.
                return self._user() if self.participant is None else f"participant {self.participant}"
            case Scope.USER:
                return self._user()
            case Scope.ACCESS_KEY:
                return self.credential_id if self.credential_id.startswith(ACCESS_KEY_ID_PREFIX) else None
            case Scope.TOKEN:
                return self.token_ids[0] if self.token_ids else None
            case Scope.AGENT_SESSION:
                return self.agent_session
            case Scope.LABEL:
                return dict(self.labels).get(kind.label or "")

    def _user(self) -> str | None:
        return None if self.user is None else f"user {self.user} {self.issuer or ''}".rstrip()


#: The start of the ids of access keys (state/access_keys.py).
ACCESS_KEY_ID_PREFIX = "ak_"

#: The kind of the counters that limit narrowed tokens.
TOKEN_TOTAL = CounterKind(Scope.TOKEN, Period.TOTAL)


class BudgetedSpender(msgspec.Struct, frozen=True, eq=False):
    """A spender, and the budgets of its requests: one object for all of them, by which more is found without a hash."""

    spender: Spender
    budgets: tuple[Budget, ...] = ()


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """The reservation of a request before it is sent.

    Attributes:
        budgeted: Whom the request is charged to, and the budgets that must have room for it.
        bound: The most that it can cost.
        at: When the request began, aware UTC; it decides the period.
        forced: True if the work runs already: it is reserved although a budget or limit would not admit it.
        claims: The units that it takes of the limits of its project and caller.
    """

    request_id: str
    budgeted: BudgetedSpender
    bound: CostBound
    at: datetime
    forced: bool = False
    claims: tuple[RateClaim, ...] = ()

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter reserves."""
        return amount.choose(self.bound.total, self.bound.subtotal)


@dataclass(frozen=True, slots=True)
class CounterState:
    """A counter: what its requests have cost, and what those under way can cost.  USD."""

    kind: CounterKind
    project_id: str
    subject: str
    interval: Interval
    settled: Decimal
    reserved: Decimal


#: Percents of a limit that are warned of, highest first.
THRESHOLDS_PERCENT = (100, 80, 50)


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """A counter has reached `threshold` percent of its limit of `limit` USD."""

    counter: CounterState
    limit: Decimal
    threshold: int


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """A budget does not admit a request that can cost `bound` USD."""

    budget: Budget
    counter: CounterState
    bound: Decimal

    @property
    def exhausted(self) -> bool:
        """True if the money is spent; False if only reservations are in the way, which end soon."""
        settled, limit = self.counter.settled, self.budget.limit
        return settled >= limit or (self.budget.strict and settled + self.bound > limit)


#: A budget or a limit does not admit a request.
Refusal = BudgetRefusal | RateRefusal
