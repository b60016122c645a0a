"""The requests that run now in this process, with what each would cost if it broke off.

An estimate copies the reader of a stream, which takes some 0.1 ms, so that all viewers share those of a second, and
their number is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tornado_proxy.api.caller_slots import CallerSlots
from tornado_proxy.dashboard.amounts import show_exact
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import Overloaded
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.ledger.reports.records_query import add_exactly
from tornado_proxy.ledger.rows import format_time

#: Seconds for which an estimate is shown.
TICK_S = 1.0

#: Streams of events at the same time, over all viewers and of each.
MAX_STREAMS, MAX_STREAMS_PER_VIEWER = 20, 5

#: Requests that one viewer sees, and estimates of one second.
MAX_SHOWN, _MAX_ESTIMATES = 200, 500

#: Estimates between two turns of the event loop.
_ESTIMATES_PER_TURN = 10

COLUMNS = ("started_at", "request_id", "project", "caller", "provider", "model", "endpoint", "seconds", "cost")

#: Those that hold no text of clients.
TRUSTED_COLUMNS = frozenset({"started_at", "request_id", "provider", "endpoint", "seconds", "cost"})


@dataclass(frozen=True, slots=True)
class LiveRequests:
    """The running requests that a viewer may see: the first MAX_SHOWN as rows, the number of all, the sum of costs."""

    rows: tuple[dict[str, object], ...]
    count: int
    cost: Decimal


class LiveFeed:
    """Shows the running requests of one process to its viewers."""

    def __init__(
        self, list_running: Callable[[], Sequence[RunningRequest]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._list_running = list_running
        self._clock = clock
        self._costs: dict[str, Decimal | None] = {}
        self._began_at = 0.0
        #: The streams of events, by viewer.
        self.streams = CallerSlots(
            MAX_STREAMS,
            MAX_STREAMS_PER_VIEWER,
            lambda: Overloaded("too many pages watch the running requests already; close one, or reload this page"),
        )

    async def look(self, viewer: Viewer, now: datetime) -> LiveRequests:
        """Return the running requests that a viewer may see."""
        running = [request for request in self._list_running() if viewer.may_see(request.caller)]
        shown = running[:MAX_SHOWN]
        costs = [cost async for cost in self._estimate(shown)]
        rows = tuple(_make_row(request, cost, now) for request, cost in zip(shown, costs, strict=True))
        return LiveRequests(rows, len(running), add_exactly([cost for cost in costs if cost is not None]))

    async def _estimate(self, requests: Iterable[RunningRequest]) -> AsyncIterator[Decimal | None]:
        for number, request in enumerate(requests, start=1):
            if self._clock() - self._began_at >= TICK_S:
                self._began_at = self._clock()
                self._costs.clear()
            request_id = request.request_id
            if request_id not in self._costs and len(self._costs) < _MAX_ESTIMATES:
                parts = request.meter.estimate()
                self._costs[request_id] = add_exactly([part.total for part in parts]) if parts else None
            yield self._costs.get(request_id)
            if number % _ESTIMATES_PER_TURN == 0:
                await asyncio.sleep(0)


def _make_row(request: RunningRequest, cost: Decimal | None, now: datetime) -> dict[str, object]:
    """Return the members COLUMNS; a cost that is not known yet is None."""
    return {
        "started_at": format_time(request.started_at),
        "request_id": request.request_id,
        "project": request.caller.project_id,
        "caller": request.caller.participant or request.caller.user,
        "provider": request.provider,
        "model": request.model,
        "endpoint": request.endpoint,
        "seconds": max(0, round((now - request.started_at).total_seconds())),
        "cost": None if cost is None else show_exact(cost),
    }
