"""Relays one WebSocket session in both directions, within its limits.

    client ── from_client: parse, admit, intent ──> provider
    provider ── from_provider: meter, redact ──> client

    OPEN ── the client leaves ──> CLIENT_GONE   running work is read to its end, so that its record is exact
      │ ── drain() ──> DRAINING                 the server shuts down: ends when nothing runs
      └── enforce() ──> CLOSING                 a rule of the proxy: our own close code goes to both sides

    each ── the provider's connection ends ──> ENDED, and the records of unfinished work are written

Ends, and the close code that the client gets:

    provider closes         the provider's code and reason; 1011 if the connection broke
    client closes           -
    idle, lifetime          1001
    credential or price     1008
    a stop                  1008
    shutdown                1001

The next frame of a side is handled when the coroutine returned for the previous one is done.  Most frames need no
wait and are written at once: from_client and from_provider then return None, and no task is created.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol

from tornado.iostream import StreamClosedError

from tornado_proxy import tasks
from tornado_proxy.domain.errors import BudgetExceeded, RequestError, UpstreamError
from tornado_proxy.domain.record import Outcome, RequestIntent
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.gateway.admission.admitted import AdmittedSession
from tornado_proxy.gateway.admission.stops import find_agent_session
from tornado_proxy.gateway.realtime.meter import SessionRecorder
from tornado_proxy.gateway.realtime.renewal import describe_recheck, renew_session
from tornado_proxy.gateway.services import Services
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import ClientFrame, QuotaStated, SessionChanged, SocketEvent
from tornado_proxy.upstream.websocket.connection import Closed
from tornado_proxy.upstream.websocket.message_protocol import Wait
from tornado_proxy.wire.close_reason import cut_close_reason

#: WebSocket close codes (RFC 6455 section 7.4.1).
GOING_AWAY = 1001
POLICY_VIOLATION = 1008

#: Checks of a session's time limits per limit.
CHECKS_PER_LIMIT = 4


class SessionState(Enum):
    """The state of a session; the module docstring draws the transitions."""

    OPEN = auto()
    DRAINING = auto()
    CLIENT_GONE = auto()
    CLOSING = auto()
    ENDED = auto()


#: The states in which the client's frames are ignored.
_CLOSED_STATES = (SessionState.CLOSING, SessionState.ENDED)


class SessionClient(Protocol):
    """The client's side of a session."""

    def send_frame(self, frame: str | bytes) -> Wait | None:
        """Send a frame; the result, if any, is done when the socket has taken it.

        Raises:
            StreamClosedError: the client has left.
        """

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection with a code and a reason."""


class ProviderSocket(Protocol):
    """The provider's side of a session (upstream/websocket/connection.py)."""

    async def listen(self, handle: FrameHandler) -> Closed:
        """Call `handle` with each frame until the connection ends; return how it ended."""

    def send(self, message: str | bytes) -> Wait | None:
        """Send a frame; raise UpstreamError if the connection has ended."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection."""


class FrameHandler(Protocol):
    """Handles one frame; the next one is read when the result, if any, is done."""

    def __call__(self, message: str | bytes, /) -> Wait | None:
        """Handle `message`."""


class WebSocketRelay:
    """Relays one session whose provider is connected.  Call start(), then run() once; the other methods at any time."""

    def __init__(
        self,
        session: AdmittedSession,
        session_id: str,
        client: SessionClient,
        upstream: ProviderSocket,
        meter: SessionRecorder,
    ) -> None:
        self._session = session
        self._session_id = session_id
        self._client = client
        self._upstream = upstream
        self._meter = meter
        self._limits = session.context.snapshot.settings.websockets
        self._redaction = session.context.redaction
        self._state = SessionState.OPEN
        #: The agent session that the handshake, or the last request of the session, has stated.
        self._agent_session = find_agent_session(session.context)
        self._outcome: Outcome | None = None
        self._fault: str | None = None
        self._loop = asyncio.get_running_loop()
        self._active_at = self._opened_at = self._checked_at = self._loop.time()
        self.closed = Closed(GOING_AWAY, "")

    def start(self, services: Services) -> None:
        """Count the session; the client's frames may come from now on."""
        self._services = services
        services.capacity.add(self, self._session.context.caller.project_id)

    async def run(self) -> None:
        """Relay frames until the session has ended."""
        services = self._services
        interval_s = self._check_interval_s
        services.session_sweep.add(self, interval_s)
        if services.capacity.draining:  # since the handshake
            self.drain()
        try:
            closed = await self._upstream.listen(self.from_provider)
            if self._state is not SessionState.CLOSING:
                if closed.broken and self._outcome is None:
                    self._fault = closed.reason
                closed = replace(closed, reason=self._redaction.text(closed.reason))
                self.closed = closed
                self._client.close(closed.code, closed.reason)
        finally:
            services.session_sweep.discard(self, interval_s)
            services.drains.done(self)
            services.capacity.discard(self)
            self._upstream.close(GOING_AWAY)
            self._outcome = self._outcome or self._default_outcome()
            self._state = SessionState.ENDED
            self._meter.close(self._outcome, self._fault)

    def from_client(self, message: str | bytes) -> Wait | None:
        """Admit one frame and send it on; a rejected frame gets an error frame and goes nowhere."""
        if self._state in _CLOSED_STATES:
            return None
        self._active_at = self._loop.time()
        self._renew()
        context, reader = self._session.context, self._session.reader
        try:
            parsed = self._services.bodies.parse_frame(context, message, reader.model)
        except RequestError as error:
            return self._refuse(error, ClientFrame())
        return self._accept(parsed, message) if isinstance(parsed, ClientFrame) else self._accept_later(parsed, message)

    async def _accept_later(self, parsing: Awaitable[ClientFrame], message: str | bytes) -> None:
        """Accept a large frame, which another process reads."""
        try:
            frame = await parsing
        except RequestError as error:
            wait = self._refuse(error, ClientFrame())
        else:
            wait = None if self._state in _CLOSED_STATES else self._accept(frame, message)
        if wait is not None:
            await wait

    def _accept(self, parsed: ClientFrame, message: str | bytes) -> Wait | None:
        try:
            frame = self._session.reader.accept_frame(parsed)
        except RequestError as error:
            return self._refuse(error, ClientFrame())
        if frame.spends or frame.references or frame.facts is not None:
            return self._admit(frame, message)
        return self._to_provider(message)

    def _renew(self) -> None:
        """Follow the configuration: the next request gets the present one."""
        snapshot = self._services.snapshots.current
        if snapshot is not self._session.context.snapshot:
            self._session = renew_session(self._session, snapshot)
            self._meter.renew(self._session.context, self._session.access)

    def _refuse(self, error: RequestError, frame: ClientFrame) -> Wait | None:
        return self._to_client(self._session.reader.refusal(error, frame, _new_event_id()))

    def from_provider(self, message: str | bytes) -> Wait | None:
        """Meter one frame and send it on."""
        self._active_at = self._loop.time()
        events = self._session.reader.feed_server_frame(message)
        if not events:
            return self._forward(message)
        self._renew()
        wait = self._meter.apply(events)
        if wait is not None:
            return self._forward_after(wait, events, message)
        self._check_prices(events)
        return self._forward(self._without_quota(message, events))

    def client_left(self, code: int | None, reason: str | None) -> None:
        """Called when the client's connection has closed."""
        if self._state not in _CLOSED_STATES:
            self._state = SessionState.CLIENT_GONE
        streams = self._session.context.snapshot.settings.streams
        if self._meter.working and self._session.context.on_client_disconnect == "drain" and self._outcome is None:
            self._services.drains.begin(self, streams.drain_limit_s, streams.drain_max)
            return
        self._outcome = self._outcome or Outcome.CLIENT_CLOSED
        self._upstream.close(code or GOING_AWAY, reason or "")

    def drain(self) -> None:
        """Called when the server shuts down: end as soon as nothing runs."""
        if self._state is SessionState.OPEN:
            self._state = SessionState.DRAINING
        if not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """End the session now; the records of unfinished work state `reason`."""
        self._outcome = self._outcome or outcome
        self._fault = self._fault or reason
        if self._state is SessionState.CLIENT_GONE:
            self._upstream.close(GOING_AWAY)
        else:
            self._close_session(GOING_AWAY, "the server is shutting down")

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the session."""
        return target.covers(self._session.context.caller, self._agent_session)

    def stop(self, stop: Stop) -> None:
        """Close the session because of a stop that covers it."""
        if self._state not in _CLOSED_STATES:
            self._outcome = self._outcome or Outcome.PROXY_CLOSED
            self._fault = self._fault or str(stop)
            self._close_session(POLICY_VIOLATION, str(stop))

    async def _admit(self, frame: ClientFrame, message: str | bytes) -> None:
        session = self._session  # a reload can renew it meanwhile
        try:
            intent = await self._services.admission.admit_frame(session, frame, self._session_id)
        except BudgetExceeded as error:
            await self._refuse_and_close(error, frame)
            return
        except RequestError as error:
            wait = self._refuse(error, frame)
        else:
            if intent is not None:
                self._expect(intent, frame, session.access.tariff)
            wait = self._to_provider(message)
        if wait is not None:
            await wait

    async def _refuse_and_close(self, error: RequestError, frame: ClientFrame) -> None:
        """Tell the client that its budget is spent, and close the session: nothing that it sends could be admitted."""
        wait = self._refuse(error, frame)
        if wait is not None:
            await wait
        if self._state not in _CLOSED_STATES:
            self._enforce(POLICY_VIOLATION, error.message)

    def _expect(self, intent: RequestIntent, frame: ClientFrame, tariff: Tariff) -> None:
        self._agent_session = intent.attribution.agent_session or self._agent_session
        self._meter.expect(intent, frame, tariff)
        if self._state is SessionState.ENDED:
            # The session ended while the ledger stored the intent.  Without a second close, the intent would have no
            # record until the process ends.
            self._meter.close(self._outcome or self._default_outcome(), self._fault)

    async def _forward_after(self, metered: Wait, events: tuple[SocketEvent, ...], message: str | bytes) -> None:
        await metered
        self._check_prices(events)
        wait = self._forward(self._without_quota(message, events))
        if wait is not None:
            await wait
        if self._meter.over_budget is not None and self._state not in _CLOSED_STATES:
            await self._refuse_and_close(self._meter.over_budget, ClientFrame())

    def _without_quota(self, message: str | bytes, events: tuple[SocketEvent, ...]) -> str | bytes | None:
        """Return the frame that the client may see, None if it must not see the frame at all."""
        if self._session.access.exclusive:
            return message
        return next((event.rest for event in events if isinstance(event, QuotaStated)), message)

    def _forward(self, message: str | bytes | None) -> Wait | None:
        if self._state is SessionState.CLOSING:
            return None
        wait = None if message is None else self._to_client(self._redaction.frame(message))
        if self._state is not SessionState.OPEN and not self._meter.working:
            drained = self._state is SessionState.DRAINING
            self.end(Outcome.SHUTDOWN if drained else Outcome.CLIENT_CLOSED)
        return wait

    def _to_provider(self, message: str | bytes) -> Wait | None:
        try:
            return self._upstream.send(message)
        except UpstreamError:
            return None  # listen() sees the end of the connection, and the client is told there

    def _to_client(self, frame: str | bytes) -> Wait | None:
        if self._state not in (SessionState.OPEN, SessionState.DRAINING):
            return None
        try:
            return self._client.send_frame(frame)
        except StreamClosedError:
            self._state = SessionState.CLIENT_GONE
            return None

    def _check_prices(self, events: tuple[SocketEvent, ...]) -> None:
        """Close the session if the provider has moved it to a model that is not granted or has no price."""
        for event in events:
            if not isinstance(event, SessionChanged):
                continue
            try:
                self._services.admission.admit_spends(self._session.context, event.spends, datetime.now(UTC))
            except RequestError as error:
                self._enforce(POLICY_VIOLATION, error.message)

    def _enforce(self, code: int, reason: str) -> None:
        """Close the session by a rule of the proxy; the records of unfinished work state `reason`."""
        if self._outcome is None and self._state is not SessionState.CLIENT_GONE:
            self._outcome, self._fault = Outcome.PROXY_CLOSED, reason
        self._close_session(code, reason)

    def _close_session(self, code: int, reason: str) -> None:
        self._outcome = self._outcome or self._default_outcome()
        self._state = SessionState.CLOSING
        self.closed = Closed(code, reason)
        self._upstream.close(GOING_AWAY)
        self._client.close(code, cut_close_reason(reason))

    def _default_outcome(self) -> Outcome:
        return Outcome.CLIENT_CLOSED if self._state is SessionState.CLIENT_GONE else Outcome.UPSTREAM_BROKEN

    @property
    def _check_interval_s(self) -> float:
        limits = self._limits
        return min(limits.recheck_s, limits.idle_timeout_s / CHECKS_PER_LIMIT, limits.lifetime_s / CHECKS_PER_LIMIT)

    def check_limits(self, now: float) -> None:
        """Close the session if it is too old or idle, or its credential is not valid any more."""
        limits = self._limits
        if now - self._opened_at >= limits.lifetime_s:
            self._enforce(GOING_AWAY, f"the session reached its lifetime of {limits.lifetime_s:g} s; reconnect")
        elif now - self._active_at >= limits.idle_timeout_s:
            self._enforce(GOING_AWAY, f"no message for {limits.idle_timeout_s:g} s")
        elif now - self._checked_at >= limits.recheck_s:
            self._checked_at = now
            tasks.spawn(self._recheck(), "session recheck")

    async def _recheck(self) -> None:
        services, session = self._services, self._session
        try:
            await services.admission.recheck(session.context, session.reader.spends, services.snapshots.current)
        except RequestError as error:
            if self._state not in _CLOSED_STATES:
                self._enforce(POLICY_VIOLATION, describe_recheck(error))


def _new_event_id() -> str:
    return f"event_{os.urandom(12).hex()}"
