"""The JSON documents and parameters that change budgets, for the admin port and the client port.  Pure functions.

PUT       a document    read_setting    ──> a limit, or None to restore that of the configuration
DELETE    parameters    read_lift       ──> no limit until a time
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

import msgspec

from tornado_proxy.api.project_parameter import find_project_id
from tornado_proxy.budgets.selection import (
    BudgetSelector,
    Until,
    find_kind,
    make_change,
    parse_until,
    parse_usd,
)
from tornado_proxy.domain.budgets.budget import BudgetChange
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.budgets.counter import Amount, CounterState, Period, Scope
from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.project_lookup import match_projects

#: The members that name a budget, and the parameters of DELETE.
SELECTORS = (
    *("project", "period", "per", "of", "start_day", "label"),
    *("participant", "user", "issuer", "access_key", "token", "agent_session", "value"),
)


class _Selector(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    project: str
    period: Period
    per: Scope | None = None
    of: Amount | None = None
    start_day: date | None = None
    label: str | None = None
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None
    access_key: str | None = None
    token: str | None = None
    agent_session: str | None = None
    value: str | None = None
    until: str = Until.PERIOD_END.value

    def selector(self, project_id: str) -> BudgetSelector:
        """Return the selector of a budget of the project."""
        return BudgetSelector(
            project_id,
            self.period,
            self.per,
            self.of,
            self.start_day,
            self.label,
            self.participant,
            self.user,
            self.issuer,
            self.access_key,
            self.token,
            self.agent_session,
            self.value,
        )


class _Setting(_Selector, forbid_unknown_fields=True, kw_only=True):
    limit: str | None


@dataclass(frozen=True, slots=True)
class BudgetUpdate:
    """A change that a request asks for; `restores` is True if it ends an earlier one."""

    change: BudgetChange
    restores: bool = False

    @property
    def action(self) -> str:
        """The kind of change, in the audit line."""
        return "budget restored" if self.restores else "budget lifted" if self.change.limit is None else "budget set"

    def concerns(self, counter: CounterState) -> bool:
        """Return True if the limit of a counter changes."""
        change = self.change
        return (
            counter.project_id == change.project_id
            and counter.kind == change.kind
            and change.subject in (None, counter.subject)
        )


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a change, and when.

    Attributes:
        project_names: The names by id of the projects whose budgets it may change.
        project_id: The project of the path, which the request need not name; None if the path has none.
    """

    actor: str
    now: datetime
    project_names: Mapping[str, str]
    project_id: str | None = None


def read_setting(body: bytes, limits: BudgetLimits, request: Request) -> BudgetUpdate:
    """Return the change of a document.

    Raises:
        BadRequest: the document has another form, or a member breaks a rule.
        NotFound: there is no such project or budget.
    """
    try:
        content = msgspec.json.decode(body, type=dict[str, object])
        document = msgspec.convert({**_fixed(request), **content}, _Setting)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"the body is not a valid document: {str(error)[:1].lower()}{str(error)[1:]}") from None
    change = _make(document, limits, request)
    if document.limit is None:
        return BudgetUpdate(change, restores=True)
    return BudgetUpdate(replace(change, limit=parse_usd(document.limit)))


def read_lift(parameters: Mapping[str, str], limits: BudgetLimits, request: Request) -> BudgetUpdate:
    """Return the change of the parameters of a request that lifts a budget.

    Raises:
        BadRequest: a parameter is missing or malformed.
        NotFound: there is no such project or budget.
    """
    try:
        document = msgspec.convert({**_fixed(request), **parameters}, _Selector, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the parameters name no budget: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return BudgetUpdate(_make(document, limits, request))


def _fixed(request: Request) -> dict[str, object]:
    return {} if request.project_id is None else {"project": request.project_id}


def _make(document: _Selector, limits: BudgetLimits, request: Request) -> BudgetChange:
    if request.project_id is not None and not match_projects(request.project_names, document.project):
        raise BadRequest("project must be the project of the path; omit it", param="project")
    selector = document.selector(find_project_id(request.project_names, document.project))
    return make_change(find_kind(limits, selector), selector, parse_until(document.until), request.now, request.actor)
