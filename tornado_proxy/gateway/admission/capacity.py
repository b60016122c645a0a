"""Limits on what runs at once: requests and sessions in flight, bytes that arrive, and drains for clients that left."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from tornado_proxy.config.settings import LimitSettings
from tornado_proxy.domain.errors import Draining, Overloaded, RateLimited
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.units import MIB
from tornado_proxy.observability import metrics

#: Projects in one log line.
_MAX_PROJECTS_LISTED = 20


class InFlight(Protocol):
    """A request or session in flight that shutdown may have to end."""

    def drain(self) -> None:
        """Called when the server shuts down: end as soon as nothing is lost by it."""

    def end(self, outcome: Outcome) -> None:
        """End now, so that it looks broken to the client, never complete."""

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers it."""

    def stop(self, stop: Stop) -> None:
        """End it because of a stop that covers it.  Called several times."""


class Drainable(Protocol):
    """A request or session whose client has left while its response is still read."""

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """Stop reading; the record becomes an estimate and states `reason`."""


class Capacity:
    """Counts requests and sessions, and ends them at shutdown.

    A request counts from its head and a session from its handshake: counted later, those whose bodies end together
    would all pass a limit that each of them has seen free.
    """

    def __init__(self) -> None:
        #: Each request with the id of its project.
        self._in_flight: dict[InFlight, str] = {}
        self._arriving: dict[InFlight, str] = {}
        #: Requests by project, without zeros: projects come and go with reloads.
        self._by_project: dict[str, int] = {}
        #: Done when nothing is in flight or arriving; set while wait_idle() waits.
        self._idle: asyncio.Future[None] | None = None
        self.draining = False
        metrics.IN_FLIGHT.set_function(self.__len__)

    def check(self, limits: LimitSettings, project_id: str) -> None:
        """Check that another request of a project may start.

        Raises:
            Draining: the server is shutting down.
            Overloaded: the server has as many requests as it may.
            RateLimited: the project has as many requests as it may.
        """
        if self.draining:
            raise Draining("this server is shutting down; retry, another one will respond")
        limit = limits.max_streams
        if len(self._in_flight) + len(self._arriving) >= limit:
            raise Overloaded(f"this server has {limit} requests in flight (limits.max_streams); retry shortly")
        share = limits.max_streams_per_project
        if self._by_project.get(project_id, 0) >= share:
            raise RateLimited(
                f"your project has {share} requests in flight (limits.max_streams_per_project); "
                "retry when one of them has ended"
            )

    def begin_drain(self) -> None:
        """Start no further request, and tell those in flight."""
        self.draining = True
        for request in self:
            request.drain()

    def stop(self, stops: Sequence[Stop]) -> None:
        """End everything that one of the stops covers."""
        for request in self:
            stop = next((stop for stop in stops if request.is_covered(stop.target)), None)
            if stop is not None:
                request.stop(stop)

    def add_arriving(self, request: InFlight, project_id: str) -> None:
        """Count a request whose body arrives, or a session whose handshake runs."""
        if request not in self._arriving:
            self._arriving[request] = project_id
            self._by_project[project_id] = self._by_project.get(project_id, 0) + 1

    def add(self, request: InFlight, project_id: str) -> None:
        """Count a request or session that has started; no effect on one that is counted."""
        if request not in self._in_flight:
            self._in_flight[request] = project_id
            self._by_project[project_id] = self._by_project.get(project_id, 0) + 1

    def replace(self, arriving: InFlight, running: InFlight, project_id: str) -> None:
        """Count `running` in place of the request `arriving`, which has arrived."""
        if self._arriving.pop(arriving, None) is None:
            self.add(running, project_id)
        else:
            self._in_flight[running] = project_id

    def discard(self, request: InFlight) -> None:
        """Stop counting a request that has ended, has arrived, or will not arrive."""
        counted = self._in_flight if request in self._in_flight else self._arriving
        project_id = counted.pop(request, None)
        if project_id is not None:
            left = self._by_project.pop(project_id) - 1
            if left:
                self._by_project[project_id] = left
        if self._idle is not None and not self._in_flight and not self._arriving and not self._idle.done():
            self._idle.set_result(None)

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` until nothing is in flight or arriving."""
        if self._in_flight or self._arriving:
            self._idle = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle, timeout_s)

    @property
    def arriving(self) -> int:
        """The number of requests whose body arrives, and of sessions whose handshake runs."""
        return len(self._arriving)

    def count_by_project(self) -> dict[str, int]:
        """Return how many requests and sessions the projects with the most of them have."""
        return dict(Counter(self._by_project).most_common(_MAX_PROJECTS_LISTED))

    def __len__(self) -> int:
        return len(self._in_flight)

    def __iter__(self) -> Iterator[InFlight]:
        return iter((*self._in_flight, *self._arriving))


class ArrivingBytes:
    """Counts the bytes held for request bodies and WebSocket messages that have not arrived in full.

    A client can send all of a body but its last byte, and so hold memory that no request pays for.
    """

    def __init__(self) -> None:
        self._total_bytes = 0
        #: Bytes by caller, without zeros.
        self._by_caller: dict[_CallerKey, int] = {}
        metrics.ARRIVING_BYTES.set_function(lambda: self._total_bytes)

    def open(self, caller: Caller, limits: LimitSettings) -> HeldBytes:
        """Return the count of one request or session of `caller`."""
        return HeldBytes(self, (caller.project_id, caller.participant, caller.user, caller.issuer), limits)

    def check(self, caller: _CallerKey, size: int, limits: LimitSettings) -> None:
        """Check that `size` more bytes may be held for a caller.

        Raises:
            Overloaded: the server holds as many bytes as it may.
            RateLimited: the caller has as many bytes as it may.
        """
        if self._total_bytes + size > limits.max_arriving_mb * MIB:
            raise Overloaded(
                f"this server holds {limits.max_arriving_mb} MiB of requests that still arrive "
                "(limits.max_arriving_mb); retry shortly",
                code="too_many_arriving_bytes",
            )
        if self._by_caller.get(caller, 0) + size > limits.max_arriving_mb_per_caller * MIB:
            raise RateLimited(
                f"your requests that still arrive have {limits.max_arriving_mb_per_caller} MiB "
                "(limits.max_arriving_mb_per_caller); send fewer at the same time",
            )

    def change(self, caller: _CallerKey, size: int) -> None:
        """Add `size` bytes, or remove them if it is negative."""
        self._total_bytes += size
        held = self._by_caller.pop(caller, 0) + size
        if held:
            self._by_caller[caller] = held


#: Project, participant and user.
_CallerKey = tuple[str, str | None, str | None, str | None]


class HeldBytes:
    """The bytes held for one request or session."""

    __slots__ = ("_arriving", "_caller", "_held_bytes", "_limits")

    def __init__(self, arriving: ArrivingBytes, caller: _CallerKey, limits: LimitSettings) -> None:
        self._arriving = arriving
        self._caller = caller
        self._limits = limits
        self._held_bytes = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes.

        Raises:
            RequestError: one of the limits is reached; the bytes are not counted.
        """
        self._arriving.check(self._caller, size, self._limits)
        self._arriving.change(self._caller, size)
        self._held_bytes += size

    def release(self) -> None:
        """Stop counting: the bytes have arrived in full, or have been dropped."""
        if self._held_bytes:
            self._arriving.change(self._caller, -self._held_bytes)
            self._held_bytes = 0


class DrainLimiter:
    """Bounds drains in number and time, so that clients that leave cannot make the proxy read without end."""

    def __init__(self) -> None:
        self._deadlines: dict[Drainable, asyncio.TimerHandle] = {}
        metrics.DRAINS.set_function(self.__len__)

    def begin(self, request: Drainable, time_limit_s: float, limit: int) -> None:
        """Let `request` be drained for at most `time_limit_s`; end it at once if `limit` drains run already."""
        if len(self._deadlines) >= limit:
            reason = f"not drained: {limit} responses are being drained already (streams.drain_max)"
            _cut_drain(request, "drain_max", reason)
            return
        loop = asyncio.get_running_loop()
        reason = f"not drained to its end: took more than {time_limit_s:g} s (streams.drain_limit_s)"
        self._deadlines[request] = loop.call_later(time_limit_s, _cut_drain, request, "drain_limit_s", reason)

    def done(self, request: Drainable) -> None:
        """Forget a request that has ended."""
        deadline = self._deadlines.pop(request, None)
        if deadline is not None:
            deadline.cancel()

    def __len__(self) -> int:
        return len(self._deadlines)


def _cut_drain(request: Drainable, limit: str, reason: str) -> None:
    metrics.child(metrics.DRAINS_CUT, limit).inc()
    request.end(Outcome.CLIENT_CLOSED, reason)
