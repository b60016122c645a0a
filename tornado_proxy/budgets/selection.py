"""Finds the budget that a command or a request of the admin port names, and makes the change that it asks for.

Pure functions.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum

from tornado_proxy.budgets.periods import find_interval
from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL, Amount, CounterKind, Period, Scope
from tornado_proxy.domain.budgets.spender import Spender
from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.ledger.rows import format_time

#: As for `usd` in schemas/projects.schema.json.
_USD = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?")


class Until(Enum):
    """Times that a change can end at, other than a given one."""

    PERIOD_END = "period_end"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class BudgetSelector:
    """Names a budget of a project, and perhaps one of its subjects.

    Attributes:
        per: Whose spend the budget limits; None if the others name it.
        of, start, label: Further properties that the budget must have; None if they do not matter.
        participant, user, issuer, access_key, token, agent_session, value: The subject whose limit is meant.
    """

    project_id: str
    period: Period
    per: Scope | None = None
    of: Amount | None = None
    start: date | None = None
    label: str | None = None
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    access_key: str | None = None
    token: str | None = None
    agent_session: str | None = None
    value: str | None = None


def find_kind(limits: BudgetLimits, selector: BudgetSelector) -> CounterKind:
    """Return the kind of the budget that a selector names.

    Raises:
        NotFound: the project has no such budget.
        BadRequest: it has several.
    """
    budgets = limits.budgets.get(selector.project_id)
    if budgets is None:
        raise NotFound(f"there is no project {selector.project_id[:100]!r}; list the projects to see their ids")
    known = list(dict.fromkeys(budget.kind for budget in budgets))
    if limits.find_stated(selector.project_id, TOKEN_TOTAL, selector.token) is not None:
        known = list(dict.fromkeys((*known, TOKEN_TOTAL)))
    kinds = [kind for kind in known if _matches(kind, selector)]
    # A subject says whose spend is limited.
    kinds = [kind for kind in kinds if _find_spender(kind, selector).subject(kind)] or kinds
    if not kinds:
        if not known:
            raise NotFound("the project has no budgets; add one to its file, which a change can then replace")
        named = ", ".join(map(describe_kind, known))
        raise NotFound(f"the project has no such budget; its budgets are: {named}")
    if len({replace(kind, start=None) for kind in kinds}) == 1 and selector.start is None:
        # Nothing else could name the one without a start.
        kinds = [kind for kind in kinds if kind.start is None] or kinds
    if len(kinds) > 1:
        named = ", ".join(map(describe_kind, kinds))
        raise BadRequest(f"the project has several such budgets: {named}; name per, label, of and start of one")
    return kinds[0]


def find_subject(kind: CounterKind, selector: BudgetSelector) -> str | None:
    """Return the subject that a selector names, None for all subjects of the budget.

    Raises:
        BadRequest: the selector names a subject of another kind.
    """
    given = {
        name: value
        for name in ("participant", "user", "access_key", "token", "agent_session", "value")
        if (value := getattr(selector, name)) is not None
    }
    if not given:
        if selector.issuer is not None:
            raise BadRequest("issuer belongs to a user; name the user too", param="issuer")
        return "" if kind.scope is Scope.PROJECT else None
    spender = _find_spender(kind, selector)
    subject = spender.subject(kind)
    if len(given) > 1 or not subject:
        raise BadRequest(f"a budget {describe_kind(kind)} has no {' and '.join(given)}", param=next(iter(given)))
    return subject


def make_change(
    kind: CounterKind, selector: BudgetSelector, until: datetime | Until, now: datetime, actor: str
) -> BudgetChange:
    """Return the change that lifts a budget.

    Raises:
        BadRequest: the selector names another subject, or `until` is past.
    """
    match until:
        case Until.NEVER:
            ends = None
        case Until.PERIOD_END:
            ends = find_interval(kind.period, kind.start, now).end
        case datetime():
            if until <= now:
                raise BadRequest(f"until is {format_time(until)}, which is past; name a later time", param="until")
            ends = until
    return BudgetChange(selector.project_id, kind, find_subject(kind, selector), None, ends, now, actor)


def parse_usd(text: str) -> Decimal:
    """Return an amount of USD.

    Raises:
        BadRequest: it is no decimal, or too large.
    """
    if not _USD.fullmatch(text):
        raise BadRequest(
            f"limit {text[:40]!r} must be a decimal with up to 12 digits before the point and after it", param="limit"
        )
    return Decimal(text)


def parse_until(text: str) -> datetime | Until:
    """Return the time that a change ends at.

    Raises:
        BadRequest: it is no day, RFC 3339 time, `period_end` or `never`.
    """
    if text in (Until.PERIOD_END.value, Until.NEVER.value):
        return Until(text)
    with contextlib.suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text)
        # UTC, as in reports: with a local time zone the same text would name other times elsewhere.
        return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
    raise BadRequest(
        f"until {text[:40]!r} must be a day or a time such as 2026-12-01 or 2026-12-01T00:00:00Z (UTC), "
        "period_end or never",
        param="until",
    )


def describe_kind(kind: CounterKind) -> str:
    """Return the properties of a kind that tell it from others, such as `per participant of each month`."""
    per = f"per label {kind.label}" if kind.scope is Scope.LABEL else f"per {kind.scope.replace('_', ' ')}"
    period = "in total" if kind.period is Period.TOTAL else f"of each {kind.period}"
    of = " of the subtotal" if kind.amount is Amount.SUBTOTAL else ""
    return f"{per} {period}{of}{'' if kind.start is None else f' from {kind.start.isoformat()}'}"


def _find_spender(kind: CounterKind, selector: BudgetSelector) -> Spender:
    """Return the spender that a selector names, as requests that count for `kind` have it."""
    return Spender(
        selector.project_id,
        selector.participant,
        selector.user,
        selector.issuer,
        selector.access_key or "",
        () if selector.value is None else ((kind.label or "", selector.value),),
        () if selector.token is None else (selector.token,),
        selector.agent_session,
    )


def _matches(kind: CounterKind, selector: BudgetSelector) -> bool:
    return kind.period is selector.period and all(
        wanted in (None, actual)
        for wanted, actual in (
            (selector.per, kind.scope),
            (selector.of, kind.amount),
            (selector.start, kind.start),
            (selector.label, kind.label),
        )
    )
