"""Budgets as values: what a counter sums, the limit of a budget, and the spender that a request is charged to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

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
    LABEL = "label"


class Amount(StrEnum):
    """The amount of a record that a counter sums: with or without the surcharge."""

    TOTAL = "total"
    SUBTOTAL = "subtotal"


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
    """What the budgets of a configuration need.

    `hold` is True if what a request can have cost counts until its period ends, if its cost is not known.  `rates` is
    True if projects have limits of requests, tokens or streams.
    """

    kinds: tuple[CounterKind, ...] = ()
    hold: bool = True
    rates: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in USD for each counter of a kind.

    A strict budget admits a request only if what it can cost at most fits; any other one admits requests until its
    limit is reached, so that the last one can exceed it.
    """

    kind: CounterKind
    limit: Decimal
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Spender:
    """Whom a request is charged to, as its record states it."""

    project_id: str
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    credential_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def subject(self, kind: CounterKind) -> str | None:
        """Return the subject of the counter of `kind` that counts this spender; None if none does."""
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
            case Scope.LABEL:
                return dict(self.labels).get(kind.label or "")

    def _user(self) -> str | None:
        return None if self.user is None else f"user {self.user} {self.issuer or ''}".rstrip()


#: The start of the ids of access keys (state/access_keys.py).
ACCESS_KEY_ID_PREFIX = "ak_"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request reserves before it is sent.

    Attributes:
        total: The most USD that the request can cost, with the surcharge; `subtotal` is the same without.
        at: When the request began, aware UTC; it decides the period.
        forced: True if the work runs already: it is reserved although a budget or limit would not admit it.
        claims: What it takes of the limits of its project and caller.
    """

    request_id: str
    spender: Spender
    budgets: tuple[Budget, ...]
    total: Decimal
    subtotal: Decimal
    at: datetime
    forced: bool = False
    claims: tuple[RateClaim, ...] = ()

    def amount(self, amount: Amount) -> Decimal:
        """Return the amount that a counter reserves."""
        return self.total if amount is Amount.TOTAL else self.subtotal


@dataclass(frozen=True, slots=True)
class CounterState:
    """A counter: what its requests have cost, and what those under way can cost.  USD."""

    kind: CounterKind
    project_id: str
    subject: str
    interval: Interval
    settled: Decimal
    reserved: Decimal


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
