"""The requests that run now, with what each would cost if it broke off.

    OwnRequests      those of this process, with estimates
    OtherProcesses   those of the others (other_processes.py)
    LiveFeed         what a viewer may see of both

An estimate copies the reader of a stream, which takes some 0.1 ms, so that all viewers share those of a second, and
their number is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import chain
from operator import attrgetter

import msgspec

from tornado_proxy.api.caller_slots import CallerSlots
from tornado_proxy.dashboard.amounts import show_exact
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.errors import Overloaded
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.ledger.reports.records_query import add_exactly
from tornado_proxy.ledger.rows import format_time

#: Seconds for which an estimate is shown.
TICK_S = 1.0

#: Streams of events at the same time, over all viewers and of each.
MAX_STREAMS, MAX_STREAMS_PER_VIEWER = 20, 5

#: Requests that one viewer sees.
MAX_SHOWN = 200

#: Requests that other processes see, and estimates of one second.
MAX_SHARED, _MAX_ESTIMATES = 500, 500

#: Estimates between two turns of the event loop.
_ESTIMATES_PER_TURN = 10

COLUMNS = ("started_at", "request_id", "project", "caller", "provider", "model", "endpoint", "seconds", "cost")

#: Those that hold no text of clients.
TRUSTED_COLUMNS = frozenset({"started_at", "request_id", "provider", "endpoint", "seconds", "cost"})


class LiveRequest(msgspec.Struct, frozen=True):
    """A running request; `cost` is None if it is not known yet.  The other members are those of RunningRequest."""

    request_id: str
    started_at: datetime
    project_id: str
    participant: str | None
    user: str | None
    issuer: str | None
    provider: str
    endpoint: str
    model: str | None
    cost: Decimal | None

    @property
    def caller(self) -> Caller:
        """The caller, as far as viewers are told apart."""
        return Caller(self.project_id, self.participant, self.user, issuer=self.issuer)


class SharedRequests(msgspec.Struct, frozen=True):
    """The running requests of one process: the first MAX_SHARED, and the number of the others by project."""

    listed: tuple[LiveRequest, ...] = ()
    unlisted: Mapping[str, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveRequests:
    """The running requests that a viewer may see: the first MAX_SHOWN as rows, the number of all, the sum of costs."""

    rows: tuple[dict[str, object], ...]
    count: int
    cost: Decimal


class OwnRequests:
    """The running requests of this process."""

    def __init__(
        self, list_running: Callable[[], Sequence[RunningRequest]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._list_running = list_running
        self._clock = clock
        self._costs: dict[str, Decimal | None] = {}
        self._began_at = 0.0

    async def find(self, viewer: Viewer) -> tuple[list[LiveRequest], int]:
        """Return the first MAX_SHOWN requests that a viewer may see, and the number of the others."""
        running = [request for request in self._list_running() if viewer.may_see(request.caller)]
        shown = running[:MAX_SHOWN]
        return [request async for request in self._estimate(shown)], len(running) - len(shown)

    async def share(self) -> SharedRequests:
        """Return what other processes see."""
        running = self._list_running()
        listed = tuple([request async for request in self._estimate(running[:MAX_SHARED])])
        return SharedRequests(listed, Counter(request.caller.project_id for request in running[MAX_SHARED:]))

    async def _estimate(self, requests: Iterable[RunningRequest]) -> AsyncIterator[LiveRequest]:
        for number, request in enumerate(requests, start=1):
            if self._clock() - self._began_at >= TICK_S:
                self._began_at = self._clock()
                self._costs.clear()
            request_id = request.request_id
            if request_id not in self._costs and len(self._costs) < _MAX_ESTIMATES:
                parts = request.meter.estimate()
                self._costs[request_id] = add_exactly([part.total for part in parts]) if parts else None
            yield _make_request(request, self._costs.get(request_id))
            if number % _ESTIMATES_PER_TURN == 0:
                await asyncio.sleep(0)


class LiveFeed:
    """Shows the running requests of all processes of the ledger to viewers.

    Args:
        own: Those of this process.
        list_others: Returns those of the other processes.
    """

    def __init__(self, own: OwnRequests, list_others: Callable[[], Awaitable[Iterable[SharedRequests]]]) -> None:
        self._own = own
        self._list_others = list_others
        #: The streams of events, by viewer.
        self.streams = CallerSlots(
            MAX_STREAMS,
            MAX_STREAMS_PER_VIEWER,
            lambda: Overloaded("too many pages watch the running requests already; close one, or reload this page"),
        )

    async def look(self, viewer: Viewer, now: datetime) -> LiveRequests:
        """Return the running requests that a viewer may see."""
        others = await self._list_others()
        own, count = await self._own.find(viewer)
        listed = chain.from_iterable(other.listed for other in others)
        requests = [*own, *(request for request in listed if viewer.may_see(request.caller))]
        requests.sort(key=attrgetter("started_at"))
        unlisted = [other.unlisted[project] for other in others for project in other.unlisted if viewer.sees(project)]
        return LiveRequests(
            tuple(_make_row(request, now) for request in requests[:MAX_SHOWN]),
            len(requests) + count + sum(unlisted),
            add_exactly([request.cost for request in requests if request.cost is not None]),
        )


def _make_request(running: RunningRequest, cost: Decimal | None) -> LiveRequest:
    caller = running.caller
    return LiveRequest(
        running.request_id,
        running.started_at,
        caller.project_id,
        caller.participant,
        caller.user,
        caller.issuer,
        running.provider,
        running.endpoint,
        running.model,
        cost,
    )


def _make_row(request: LiveRequest, now: datetime) -> dict[str, object]:
    """Return the members COLUMNS; a cost that is not known yet is None."""
    return {
        "started_at": format_time(request.started_at),
        "request_id": request.request_id,
        "project": request.project_id,
        "caller": request.participant or request.user,
        "provider": request.provider,
        "model": request.model,
        "endpoint": request.endpoint,
        "seconds": max(0, round((now - request.started_at).total_seconds())),
        "cost": None if request.cost is None else show_exact(request.cost),
    }
