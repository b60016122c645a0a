"""Stops those who spend more in a minute than their limit, as an operator's `stop` does; one process makes each stop.

    a record is counted ──> limits.usd_per_minute is passed ──> noted in the database (budgets/brakes.py)
                                                                   └──> here: the stop, its alert, the note is deleted

A process that dies in between leaves the note to the others.  The alert of a stop is sent once, whoever tells of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tornado_proxy import tasks
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.errors import BadRequest, LedgerUnavailable, NotFound
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.gateway.budgets.gate import BudgetGate
from tornado_proxy.gateway.budgets.refusals import format_usd
from tornado_proxy.observability import metrics
from tornado_proxy.state import stops
from tornado_proxy.state.watcher import StateWatcher

_log = logging.getLogger(__name__)

#: Who has made the stops, in messages and in the table of changes.
ACTOR = "spend brake"


class SpendBrakes:
    """Makes the stops of one process."""

    def __init__(
        self,
        state: StateWatcher,
        budgets: BudgetGate,
        on_stop: Callable[[Brake, Stop, Callable[[], None]], None] = lambda brake, stop, on_stored: on_stored(),
    ) -> None:
        """Keep the state and the budgets.

        `on_stop` is called on the event loop for each stop.  It calls its last argument when the alert is stored, or
        has no receiver.
        """
        self._state = state
        self._budgets = budgets
        self._on_stop = on_stop
        self._under_way: set[str] = set()

    def apply(self, brake: Brake) -> None:
        """Make the stop of a limit that was passed, if no process has made it.  Never blocks."""
        if brake.id not in self._under_way:
            self._under_way.add(brake.id)
            tasks.spawn(self._apply(brake), "spend brake")

    async def _apply(self, brake: Brake) -> None:
        try:
            stop = await self._make_stop(brake)
            if stop is not None:
                stored = asyncio.Event()
                self._on_stop(brake, stop, stored.set)
                await stored.wait()
            await self._budgets.forget_brake(brake.id)
        except LedgerUnavailable as error:
            # The note is still there, and is found again a second later.
            _log.error("spend brake not applied", extra={"project_id": brake.project_id, "reason": error.message})
        finally:
            self._under_way.discard(brake.id)

    async def _make_stop(self, brake: Brake) -> Stop | None:
        """Return the stop; None if it was lifted already, or another stop has the same effect."""
        stop_id = f"stop_{brake.id}"
        target = StopTarget(brake.project_id, brake.participant)
        reason = f"{format_usd(brake.spent)} USD spent in a minute, the limit is {brake.limit:f}"
        try:
            stop = await self._state.change(lambda store: stops.make(store, ACTOR, target, reason, stop_id=stop_id))
        except BadRequest:
            # Stopped by an operator, by another process, which can have died since, or by this one in a failed COMMIT.
            return await self._find_stop(stop_id)
        metrics.BRAKE_STOPS.inc()
        _log.warning(
            "spend brake applied",
            extra={
                "project_id": brake.project_id,
                "participant": brake.participant,
                "stop": stop.id,
                "spent_usd": f"{brake.spent:f}",
                "limit_usd": f"{brake.limit:f}",
            },
        )
        return stop

    async def _find_stop(self, stop_id: str) -> Stop | None:
        try:
            return await self._state.read(lambda store: stops.find_stop(store, stop_id))
        except NotFound:
            return None
