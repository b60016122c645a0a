"""Counters as values: whose spend is summed, in which period, and the sum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from tornado_proxy.domain.budgets.brake import BrakeLimits

T = TypeVar("T")


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

    def choose(self, total: T, subtotal: T) -> T:
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


#: The kind of the counters that limit narrowed tokens.
TOKEN_TOTAL = CounterKind(Scope.TOKEN, Period.TOTAL)


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
class CounterState:
    """A counter: what its requests have cost, and what those under way can cost.  USD."""

    kind: CounterKind
    project_id: str
    subject: str
    interval: Interval
    settled: Decimal
    reserved: Decimal
