"""What every handler is handed: the snapshot in use, the way up, the ledger, and the calls in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tornado_proxy.domain.errors import Draining, Overloaded
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.drains import Drains
from tornado_proxy.gateway.object_ownership import Ownership
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.metering.deferred_settlement import DeferredSettlement
from tornado_proxy.observability import metrics
from tornado_proxy.snapshot import SnapshotHolder
from tornado_proxy.upstream.http.client import UpstreamClient


class Stoppable(Protocol):
    """A call in flight that shutdown may have to end."""

    def drain(self) -> None:
        """The server is going down; come to an end by itself, if that can be done without loss."""

    def end(self, outcome: Outcome) -> None:
        """End it so that it looks broken to the client, never complete."""


class InFlight:
    """The calls in flight.  Counts them against the limit, and ends what is left at shutdown.

    Shutdown waits for requests that still arrive, too: they were taken before it began.
    """

    def __init__(self) -> None:
        self._calls: set[Stoppable] = set()
        self._arriving: set[Stoppable] = set()
        self._idle = asyncio.Event()
        self.draining = False
        metrics.IN_FLIGHT.set_function(self.__len__)

    def check(self, most: int) -> None:
        """Raise Draining or Overloaded when no further call may start."""
        if self.draining:
            raise Draining("this server is shutting down; try again, another one will answer")
        if len(self._calls) >= most:
            raise Overloaded(f"this server relays {most} requests already (limits.max_streams); try again shortly")

    def begin_drain(self) -> None:
        """Let no further call start, and tell those in flight."""
        self.draining = True
        for call in self:
            call.drain()

    def arrives(self, request: Stoppable) -> None:
        """A request has been admitted by its head; it is a call when add() is called for it."""
        self._arriving.add(request)

    def add(self, call: Stoppable) -> None:
        """A call has begun."""
        self._calls.add(call)

    def discard(self, call: Stoppable) -> None:
        """A call has ended, or a request has arrived or will not."""
        self._calls.discard(call)
        self._arriving.discard(call)
        if not self._calls and not self._arriving:
            self._idle.set()

    async def wait_idle(self, limit_s: float) -> None:
        """Wait until no call is in flight and no request arrives, for at most `limit_s`."""
        if self._calls or self._arriving:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), limit_s)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Stoppable]:
        return iter((*self._calls, *self._arriving))


@dataclass(frozen=True, slots=True)
class Services:
    """Built once, in app.py."""

    snapshots: SnapshotHolder
    upstream: UpstreamClient
    ledger: Ledger
    ownership: Ownership
    settler: DeferredSettlement
    in_flight: InFlight = field(default_factory=InFlight)
    drains: Drains = field(default_factory=Drains)
