"""Limits on what runs at once: requests and sessions in flight, and responses drained for clients that left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol

from tornado_proxy.domain.errors import Draining, Overloaded
from tornado_proxy.domain.record import Outcome
from tornado_proxy.observability import metrics


class InFlight(Protocol):
    """A request or session in flight that shutdown may have to end."""

    def drain(self) -> None:
        """Called when the server shuts down: end as soon as nothing is lost by it."""

    def end(self, outcome: Outcome) -> None:
        """End now, so that it looks broken to the client, never complete."""


class Drainable(Protocol):
    """A request or session whose client has left while its response is still read."""

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """Stop reading; the record becomes an estimate and states `reason`."""


class Capacity:
    """Counts requests and sessions in flight, and ends them at shutdown.

    Requests whose body still arrives are counted apart: shutdown waits for them, the limit does not count them.
    """

    def __init__(self) -> None:
        self._in_flight: set[InFlight] = set()
        self._arriving: set[InFlight] = set()
        self._idle = asyncio.Event()
        self.draining = False
        metrics.IN_FLIGHT.set_function(self.__len__)

    def check(self, limit: int) -> None:
        """Check that another request may start.

        Raises:
            Draining: the server is shutting down.
            Overloaded: `limit` requests are in flight.
        """
        if self.draining:
            raise Draining("this server is shutting down; retry, another one will respond")
        if len(self._in_flight) >= limit:
            raise Overloaded(f"this server has {limit} requests in flight (limits.max_streams); retry shortly")

    def begin_drain(self) -> None:
        """Start no further request, and tell those in flight."""
        self.draining = True
        for request in self:
            request.drain()

    def add_arriving(self, request: InFlight) -> None:
        """Count a request whose head was accepted and whose body arrives."""
        self._arriving.add(request)

    def add(self, request: InFlight) -> None:
        """Count a request or session that has started."""
        self._in_flight.add(request)

    def discard(self, request: InFlight) -> None:
        """Stop counting a request that has ended, has arrived, or will not arrive."""
        self._in_flight.discard(request)
        self._arriving.discard(request)
        if not self._in_flight and not self._arriving:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` until nothing is in flight or arriving."""
        if self._in_flight or self._arriving:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

    def __len__(self) -> int:
        return len(self._in_flight)

    def __iter__(self) -> Iterator[InFlight]:
        return iter((*self._in_flight, *self._arriving))


class DrainLimiter:
    """Bounds drains in number and time, so that clients that leave cannot make the proxy read without end."""

    def __init__(self) -> None:
        self._deadlines: dict[Drainable, asyncio.TimerHandle] = {}
        metrics.DRAINS.set_function(self.__len__)

    def begin(self, request: Drainable, time_limit_s: float, limit: int) -> None:
        """Let `request` be drained for at most `time_limit_s`; end it at once if `limit` drains run already."""
        if len(self._deadlines) >= limit:
            reason = f"not drained: {limit} responses are being drained already (streams.drain_max)"
            request.end(Outcome.CLIENT_CLOSED, reason)
            return
        loop = asyncio.get_running_loop()
        reason = f"not drained to its end: took more than {time_limit_s:g} s (streams.drain_limit_s)"
        self._deadlines[request] = loop.call_later(time_limit_s, request.end, Outcome.CLIENT_CLOSED, reason)

    def done(self, request: Drainable) -> None:
        """Forget a request that has ended."""
        deadline = self._deadlines.pop(request, None)
        if deadline is not None:
            deadline.cancel()

    def __len__(self) -> int:
        return len(self._deadlines)
