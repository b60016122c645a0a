"""The budgets of a project on the client port: `/accounts/projects/{project_id}/llm-proxy/budgets` (docs/budgets.md).

A caller sees its own budgets.  A project admin sees all of the project, and changes their limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from tornado.iostream import StreamClosedError

from tornado_proxy.api.budgets import SELECTORS, BudgetUpdate, Request, read_lift, read_setting
from tornado_proxy.api.project_handler import ProjectHandler
from tornado_proxy.api.usage_query import decode_arguments
from tornado_proxy.domain.budgets.budget_limits import BudgetLimits
from tornado_proxy.domain.errors import BadRequest, NotAllowed, RequestError
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER
from tornado_proxy.gateway.services import Services
from tornado_proxy.reports.budgets import BudgetRow, show_rows
from tornado_proxy.state import budgets
from tornado_proxy.state.watcher import StateWatcher

#: The route; its group is the project id.
BUDGETS_PATH = r"/accounts/projects/([^/]+)/llm-proxy/budgets"

_Read = Callable[[BudgetLimits, Request], BudgetUpdate]


class ProjectBudgetsHandler(ProjectHandler):
    """One request about the budgets of a project.

    Waits for the threads of the budgets and of the state, which answer or fail in bounded time.
    """

    path_template = "/accounts/projects/{id}/llm-proxy/budgets"
    methods = ("GET", "HEAD", "PUT", "DELETE")

    def initialize(self, services: Services, state: StateWatcher | None = None) -> None:
        """Keep the services."""
        super().initialize(services)
        assert state is not None, "the route has it"
        self._state = state

    async def get(self, project_id: str) -> None:
        """Respond with the budgets of the current periods: all of the project to its admin, else the caller's own."""
        try:
            self._read_parameters(())
            caller, project = await self.authenticate(project_id)
            await self._respond(await self._list_rows(project, None if caller.admin else caller))
        except RequestError as error:
            await self.reject(error)

    head = get

    async def put(self, project_id: str) -> None:
        """Set the limit of a budget, or restore that of the configuration."""
        await self._change(project_id, lambda limits, request: read_setting(self.request.body, limits, request), ())

    async def delete(self, project_id: str) -> None:
        """Lift a budget until a time."""
        names = (*SELECTORS, "until")
        await self._change(
            project_id, lambda limits, request: read_lift(self._read_parameters(names), limits, request), names
        )

    async def _change(self, project_id: str, read: _Read, parameters: tuple[str, ...]) -> None:
        try:
            self._read_parameters(parameters)
            caller, project = await self.authenticate(project_id)
            if not caller.admin:
                raise NotAllowed(f"only an admin of project {project.name} can change its budgets; ask one")
            limits = await self.services.budgets.read_stated(self.services.snapshots.current.budget_limits)
            update = read(
                limits, Request(f"user:{caller.user}", datetime.now(UTC), {project.id: project.name}, project.id)
            )
            apply = budgets.restore if update.restores else budgets.apply
            await self._state.change(lambda store: apply(store, update.change))
            await self._respond([row for row in await self._list_rows(project, None) if update.concerns(row.state)])
        except RequestError as error:
            await self.reject(error)

    def _read_parameters(self, known: tuple[str, ...]) -> Mapping[str, str]:
        """Return the query parameters; raise BadRequest for one that is unknown or repeated."""
        arguments = decode_arguments(self.request.query_arguments)
        for name, values in arguments.items():
            if name not in known or len(values) != 1:
                raise BadRequest(f"unknown or repeated parameter {name[:40]!r}", param=name[:40])
        return {name: values[0] for name, values in arguments.items()}

    async def _list_rows(self, project: Project, caller: Caller | None) -> list[BudgetRow]:
        """Return the budgets of a project, or those that concern a caller alone."""
        limits = self.services.snapshots.current.budget_limits
        return await self.services.budgets.read_rows(limits, project.id, caller)

    async def _respond(self, rows: Sequence[BudgetRow]) -> None:
        # In a thread: a project can have thousands of rows.
        text = await asyncio.to_thread(lambda: json.dumps(show_rows(rows)))
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        with contextlib.suppress(StreamClosedError):  # the client has disconnected
            await self.finish(text + "\n")
