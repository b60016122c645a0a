"""`/v1/budgets`: shows what budgets have spent, and changes their limits (docs/budgets.md)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.api.budgets import SELECTORS, BudgetUpdate, Request, read_lift, read_setting
from tornado_proxy.api.project_parameter import find_project_id
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.reports.budgets import BudgetRow, show_row, show_rows
from tornado_proxy.state import budgets


class BudgetsHandler(AdminHandler):
    """The budgets of all projects."""

    parameters: ClassVar = {"GET": ("project",), "PUT": ("dry_run",), "DELETE": (*SELECTORS, "until", "dry_run")}

    async def get(self) -> None:
        """Respond with the budgets of the current periods; with `project` those of one project."""
        wanted = self.read_parameter("project")
        names = self.services.snapshots.current.project_names
        project_id = None if wanted is None else find_project_id(names, wanted)
        rows = await self._list_rows(project_id)
        self.respond(await asyncio.to_thread(show_rows, rows))  # there can be thousands

    async def put(self) -> None:
        """Set the limit of a budget, or restore that of the configuration."""
        await self._update(read_setting(self.request.body, await self._read_limits(), self._make_request()))

    async def delete(self) -> None:
        """Lift a budget until a time."""
        parameters = {name: value for name in (*SELECTORS, "until") if (value := self.read_parameter(name)) is not None}
        await self._update(read_lift(parameters, await self._read_limits(), self._make_request()))

    def _make_request(self) -> Request:
        return Request(ACTOR, datetime.now(UTC), self.services.snapshots.current.project_names)

    async def _read_limits(self) -> BudgetLimits:
        """Return the limits of all budgets, also of those that tokens state."""
        return await self.services.budgets.read_stated(self.services.snapshots.current.budget_limits)

    async def _update(self, update: BudgetUpdate) -> None:
        change = update.change
        old = await self._list_changed(update)
        apply = budgets.restore if update.restores else budgets.apply
        await self.change_state(lambda changes: apply(changes, change))
        if self.is_dry_run():
            self.respond({"dry_run": True})
            return
        new = await self._list_changed(update)
        self.log_change(
            update.action, change.project_id, old=[show_row(row) for row in old], new=[show_row(row) for row in new]
        )
        self.respond(show_rows(new))

    async def _list_rows(self, project_id: str | None) -> list[BudgetRow]:
        return await self.services.budgets.read_rows(self.services.snapshots.current.budget_limits, project_id)

    async def _list_changed(self, update: BudgetUpdate) -> list[BudgetRow]:
        """Return the budgets that a change concerns."""
        return [row for row in await self._list_rows(update.change.project_id) if update.concerns(row.state)]
