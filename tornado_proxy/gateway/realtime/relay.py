"""One WebSocket session: two directions, and a clock.

    client ── from_client: read, admit, intent ──> provider
    provider ── from_provider: meter ──> client

Tornado reads the next frame of a side when what these give has been awaited.  Most frames ask for nothing that has to
be waited for, and are taken by the other side's socket at once: these give None, and no task is made for them.

Ends, and who is told what:

    provider closes         the client, with the provider's code and reason; a broken connection is 1011
    client closes           the provider; before that a running answer is read to its end, so that its record is exact
    idle, lifetime          both, 1001
    credential gone         both, 1008
    shutdown                both, 1001; at once when nothing runs, else when it is done or time is over
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Protocol

from tornado.iostream import StreamClosedError

from tornado_proxy import tasks
from tornado_proxy.domain.errors import RequestError, UpstreamError
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.admission import RequestContext, check_spends, provider_access
from tornado_proxy.gateway.realtime.meter import AnyMeter
from tornado_proxy.gateway.services import Services
from tornado_proxy.gateway.socket_admission import admit_frame, check_again
from tornado_proxy.providers.contract import ClientFrame, SocketReader, WebSocketEndpoint
from tornado_proxy.upstream.websocket.connection import Closed, UpstreamWebSocket
from tornado_proxy.upstream.websocket.frame_sender import Wait

GOING_AWAY = 1001
POLICY_VIOLATION = 1008

#: Looks at the clock in the shortest of a session's limits.
_LOOKS = 4


class SocketClient(Protocol):
    """The side of the client."""

    def send_frame(self, frame: str | bytes) -> Wait | None:
        """Send; where the socket has not taken it yet, what is given waits for that.

        Raises:
            StreamClosedError: it has gone.
        """

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Say goodbye."""


class WebSocketRelay:
    """Relays one session whose provider is connected.  run() once; the other calls at any time.

    Every wait ends by either side, by the session's limits, or by end().
    """

    def __init__(
        self,
        entry: RequestContext[WebSocketEndpoint],
        reader: SocketReader,
        client: SocketClient,
        upstream: UpstreamWebSocket,
        meter: AnyMeter,
    ) -> None:
        self._entry = entry
        self._reader = reader
        self._client = client
        self._upstream = upstream
        self._meter = meter
        self._limits = entry.snapshot.settings.websockets
        self._key = provider_access(entry)[1].reveal()
        self._mask = "*" * len(self._key)
        self._admitted = reader.spends
        self._gone = False
        self._draining = False
        self._closing = False
        self._outcome: Outcome | None = None
        self._broken_by: str | None = None
        self._loop = asyncio.get_running_loop()
        self._active_at = self._began_at = self._loop.time()
        self.closed = Closed(GOING_AWAY, "")

    async def run(self, services: Services) -> None:
        """Pass the provider's frames on until the session has ended, to whatever end."""
        self._services = services
        services.in_flight.add(self)
        clock = tasks.spawn(self._watch(), "session clock")
        try:
            closed = await self._upstream.listen(self.from_provider)
            if closed.broken and not self._closing and self._outcome is None:
                self._broken_by = closed.reason
            if not self._closing:
                self.closed = closed
                self._client.close(closed.code, closed.reason)
        finally:
            clock.cancel()
            services.drains.done(self)
            services.in_flight.discard(self)
            self._upstream.close(GOING_AWAY)
            self._meter.close(self._outcome or self._broken(), self._broken_by)

    def from_client(self, message: str | bytes) -> Wait | None:
        """Admit one frame and send it on; what is refused is answered here and goes nowhere."""
        self._active_at = self._loop.time()
        try:
            frame = self._reader.read_client_frame(message)
        except RequestError as error:
            return self._to_client(self._reader.refusal(error, ClientFrame(), _event_id()))
        if frame.spends or frame.references or frame.facts is not None:
            return self._admit(frame, message)
        return self._to_provider(message)

    def from_provider(self, message: str | bytes) -> Wait | None:
        """Meter one frame and pass it on."""
        self._active_at = self._loop.time()
        metered = self._meter.frame(message)
        return self._pass_on(message) if metered is None else self._pass_on_after(metered, message)

    def client_left(self, code: int | None, reason: str | None) -> None:
        """The client's connection has closed."""
        self._gone = True
        streams = self._entry.snapshot.settings.streams
        if self._meter.working and streams.on_client_disconnect == "drain" and self._outcome is None:
            self._services.drains.begin(self, streams.drain_limit_s, streams.drain_max)
            return
        self._outcome = self._outcome or Outcome.CLIENT_CLOSED
        self._upstream.close(code or GOING_AWAY, reason or "")

    def drain(self) -> None:
        """The server is going down: end when nothing runs."""
        self._draining = True
        if not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def end(self, outcome: Outcome, why: str | None = None) -> None:
        """End the session now; the records of what is under way say `why`."""
        self._outcome = self._outcome or outcome
        self._broken_by = self._broken_by or why
        if self._gone:
            self._upstream.close(GOING_AWAY)
        else:
            self._close(GOING_AWAY, "the server is going down")

    async def _admit(self, frame: ClientFrame, message: str | bytes) -> None:
        try:
            await admit_frame(self._entry, frame, self._services.ownership, datetime.now(UTC))
            if frame.facts is not None:
                await self._meter.asks(frame.facts)
        except RequestError as error:
            sent = self._to_client(self._reader.refusal(error, frame, _event_id()))
        else:
            sent = self._to_provider(message)
        if sent is not None:
            await sent

    async def _pass_on_after(self, metered: Wait, message: str | bytes) -> None:
        await metered
        sent = self._pass_on(message)
        if sent is not None:
            await sent

    def _pass_on(self, message: str | bytes) -> Wait | None:
        if self._closing or not self._is_priced():
            return None
        sent = self._to_client(self._scrubbed(message))
        if not self._meter.working:
            self._nothing_runs()
        return sent

    def _to_provider(self, message: str | bytes) -> Wait | None:
        try:
            return self._upstream.send(message)
        except UpstreamError:
            return None  # the other direction sees the end, and tells the client

    def _to_client(self, frame: str | bytes) -> Wait | None:
        if self._gone:
            return None
        try:
            return self._client.send_frame(frame)
        except StreamClosedError:
            self._gone = True
            return None

    def _is_priced(self) -> bool:
        """Whether what the provider says of the session has a price; it may have chosen a model by itself."""
        spends = self._reader.spends
        if spends == self._admitted:
            return True
        try:
            check_spends(self._entry, spends, datetime.now(UTC))
        except RequestError as error:
            self._outcome = self._outcome or Outcome.UPSTREAM_BROKEN
            self._close(POLICY_VIOLATION, error.message)
            return False
        self._admitted = spends
        return True

    def _nothing_runs(self) -> None:
        if self._draining:
            self.end(Outcome.SHUTDOWN)
        elif self._gone:
            self.end(Outcome.CLIENT_CLOSED)

    def _close(self, code: int, reason: str) -> None:
        self._closing = True
        self.closed = Closed(code, reason)
        self._client.close(code, reason[:120])
        self._upstream.close(GOING_AWAY)

    def _broken(self) -> Outcome:
        return Outcome.CLIENT_CLOSED if self._gone else Outcome.UPSTREAM_BROKEN

    def _scrubbed(self, message: str | bytes) -> str | bytes:
        """A provider key that a provider echoes is masked at its own length."""
        if isinstance(message, str):
            return message.replace(self._key, self._mask) if self._key in message else message
        key = self._key.encode()
        return message.replace(key, self._mask.encode()) if key in message else message

    async def _watch(self) -> None:
        limits = self._limits
        step_s = min(limits.recheck_s, limits.idle_timeout_s / _LOOKS, limits.lifetime_s / _LOOKS)
        checked_at = self._loop.time()
        while True:
            await asyncio.sleep(step_s)
            now = self._loop.time()
            if now - self._began_at > limits.lifetime_s:
                self._close(GOING_AWAY, f"a session lasts {limits.lifetime_s:g} s at most; connect again")
            elif now - self._active_at > limits.idle_timeout_s:
                self._close(GOING_AWAY, f"no message for {limits.idle_timeout_s:g} s")
            elif now - checked_at >= limits.recheck_s:
                checked_at = now
                self._recheck()

    def _recheck(self) -> None:
        """Look at the credential again, by the configuration that is in use now."""
        try:
            check_again(self._entry, self._reader.spends, self._services.snapshots.current)
        except RequestError as error:
            self._close(POLICY_VIOLATION, f"the credential no longer holds: {error.message}")


def _event_id() -> str:
    return f"event_{os.urandom(12).hex()}"
