"""`/v1/stops`: stops projects, participants and agent sessions, and resumes them (docs/budgets.md)."""

from __future__ import annotations

from typing import ClassVar

from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.api.stops import read_stop, show_stop, show_stops
from tornado_proxy.domain.stop import Stop
from tornado_proxy.state import stops


class _StopHandler(AdminHandler):
    parameters: ClassVar = {"POST": ("dry_run",), "DELETE": ("dry_run",)}

    def respond_to_change(self, action: str, stop: Stop, status: int = 200) -> None:
        """Log the change and respond with the stop, or in a dry run with that alone."""
        if self.is_dry_run():
            self.respond({"dry_run": True})
            return
        self.log_change(action, stop.id, new=show_stop(stop))
        if status == 201:
            self.set_header("Location", f"/v1/stops/{stop.id}")
        self.respond(show_stop(stop), status)


class StopsHandler(_StopHandler):
    """All stops that are in force."""

    async def get(self) -> None:
        """Respond with the stops, oldest first."""
        self.respond(show_stops(await self.admin.state.read(stops.list_stops)))

    async def post(self) -> None:
        """Stop something."""
        target, reason = read_stop(self.request.body)
        stops.check_stop(target, reason, self.services.snapshots.current.projects)
        stop = await self.change_state(lambda changes: stops.make(changes, ACTOR, target, reason))
        self.respond_to_change("stopped", stop, 201)


class StopHandler(_StopHandler):
    """One stop."""

    async def get(self, stop_id: str) -> None:
        """Respond with the stop."""
        self.respond(show_stop(await self.admin.state.read(lambda store: stops.find_stop(store, stop_id))))

    async def delete(self, stop_id: str) -> None:
        """Lift the stop."""
        stop = await self.change_state(lambda changes: stops.lift(changes, ACTOR, stop_id))
        self.respond_to_change("resumed", stop)
