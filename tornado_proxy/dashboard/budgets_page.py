"""The page of budgets and limits, with the amounts that are spent and reserved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from tornado_proxy.api.project_parameter import find_project_id
from tornado_proxy.dashboard.amounts import count_decimals, show_amount
from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.parameters import FORMATS, check_known, read_choice
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.budgets.rate_limits import RateUnit
from tornado_proxy.domain.identity import Project
from tornado_proxy.reports.budgets import BudgetRow, describe_subject, find_origin, show_row

#: The columns for programs; those that can hold text of clients are not trusted.
_TRUSTED = ("project", "per", "period", "of", "start", "end", "limit", "settled", "reserved", "held", "until", "source")
COLUMNS = ("project", "per", "subject", *_TRUSTED[2:], "changed_by", "holder")

_UNIT_TITLES = {
    RateUnit.REQUESTS: "requests per minute",
    RateUnit.TOKENS: "tokens per minute",
    RateUnit.STREAMS: "streams at the same time",
}


@dataclass(frozen=True, slots=True)
class ShownBudget:
    """A budget as the page shows it; `share` is the part of its limit that is used, in percent, at most 100."""

    project: str
    subject: str
    period: str
    limit: str
    settled: str
    reserved: str
    share: str
    is_spent: bool
    ends: str
    change: str | None


class BudgetsHandler(DashboardHandler):
    """The page of budgets and limits."""

    name: ClassVar[str] = "budgets"

    async def get(self) -> None:
        """Show the budgets, or send them."""
        viewer = await self.identify()
        known = ("format", "project") if viewer.is_operator else ("format",)
        check_known(self.parameters, known)
        output = read_choice(self.parameters, "format", FORMATS, FORMATS[0])
        rows = await self._list_budgets(viewer)
        if output != "html":
            self.send_rows("budgets", COLUMNS, [make_members(row) for row in rows], _TRUSTED)
            return
        link = self.make_page_url("/budgets", {k: v for k, v in self.parameters.items() if k == "project"})
        self.show(
            "budgets.html",
            "Budgets and limits",
            budgets=show_budgets(rows, viewer),
            limits=[limit for project in viewer.choices for limit in self._list_limits(project, viewer)],
            downloads={name: link.change(format=name) for name in ("csv", "json")},
        )

    async def _list_budgets(self, viewer: Viewer) -> list[BudgetRow]:
        """Return the budgets that the viewer may see: those of the project, or its own alone."""
        if viewer.project is None:
            wanted = self.parameters.get("project")
            project_id = None if wanted is None else find_project_id(viewer.project_names, wanted)
        else:
            project_id = viewer.project.id
        caller = None if viewer.caller is None or viewer.caller.admin else viewer.caller
        return await self.services.budgets.read_rows(self.snapshot.budget_limits, project_id, caller)

    def _list_limits(self, project: Project, viewer: Viewer) -> Iterator[tuple[str, str, str]]:
        if viewer.project is not None and project.id != viewer.project.id:
            return
        limits = self.snapshot.find_limits(project)
        for owner, units in (("project", limits.project), ("each participant", limits.per_participant)):
            for unit, limit in units.items():
                yield project.name, owner, f"{limit:,} {_UNIT_TITLES[unit]}"
        for owner, usd in (("project", limits.brakes.project), ("each participant", limits.brakes.per_participant)):
            if usd is not None:
                yield project.name, owner, f"{show_amount(usd)} USD per minute; more stops it"


def make_members(row: BudgetRow) -> dict[str, object]:
    """Return the members COLUMNS of a budget."""
    document = show_row(row)
    return {"subject": _describe_subject(row), **{name: document[name] for name in COLUMNS if name in document}}


def show_budgets(rows: Sequence[BudgetRow], viewer: Viewer) -> list[ShownBudget]:
    """Return the budgets for the page, with equally many decimals."""
    amounts = [
        amount for row in rows for amount in (row.limit or Decimal(0), row.state.settled, row.reserved + row.held)
    ]
    decimals = count_decimals(amounts)
    return [_show(row, decimals, viewer) for row in rows]


def _show(row: BudgetRow, decimals: int, viewer: Viewer) -> ShownBudget:
    state, limit = row.state, row.limit
    used = Decimal(100) if not limit else min(Decimal(100), state.settled / limit * 100)
    ends = None if row.end is None else f"{row.end:%Y-%m-%d}"
    strict = ", strict" if row.strict else ""
    return ShownBudget(
        project=viewer.project_names.get(state.project_id, state.project_id),
        subject=_describe_subject(row),
        period=f"{state.kind.period.value}, {state.kind.amount.value}{strict}",
        limit="none" if limit is None else show_amount(limit, decimals),
        settled=show_amount(state.settled, decimals),
        reserved=show_amount(row.reserved + row.held, decimals),
        share=f"{0 if limit is None else used:.2f}",
        is_spent=limit is not None and state.settled >= limit,
        ends=ends or "",
        change=_describe_change(row),
    )


def _describe_change(row: BudgetRow) -> str | None:
    """Return who has changed a limit and until when, or that a token states it; None for that of the configuration."""
    if row.change is not None:
        until = row.change.until
        return f"changed by {row.change.actor}{'' if until is None else f' until {until:%Y-%m-%d %H:%M}'}"
    return "stated by the token" if find_origin(row) == "token" else None


def _describe_subject(row: BudgetRow) -> str:
    """Return whose budget it is: the project, or the scope and its subject."""
    scope, subject = row.state.kind.scope.value, describe_subject(row)
    if not subject:
        return scope
    label = f" {row.state.kind.label}" if row.state.kind.label else ""
    # The text of a participant or user begins with its scope; see Spender.subject().
    return subject if subject.startswith(("participant ", "user ")) else f"{scope}{label} {subject}"
