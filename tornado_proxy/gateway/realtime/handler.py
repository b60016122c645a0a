"""The WebSocket handler: has the upgrade admitted, connects to the provider, and only then accepts the client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketHandler, _WebSocketParams

from tornado_proxy import tasks
from tornado_proxy.auth.credentials import PROJECT_HEADER, SUBPROTOCOL_HEADER
from tornado_proxy.domain.errors import BadRequest, RequestError, UpgradeRejected
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission import AdmittedSession
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.capacity import HeldBytes
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.realtime.meter import SessionMeter, SessionRecorder, UnbilledSession
from tornado_proxy.gateway.realtime.relay import WebSocketRelay
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.gateway.services import Services
from tornado_proxy.gateway.stops import find_agent_session
from tornado_proxy.http_server.client_frames import ClientFrames
from tornado_proxy.http_server.exchange import Exchange
from tornado_proxy.observability import access_log
from tornado_proxy.providers.contract import WebSocketEndpoint
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket
from tornado_proxy.upstream.websocket.message_protocol import Wait

#: The only version of the protocol (RFC 6455 section 4.1).
_VERSION = "13"

#: Headers that each check of the credential of an open session reads again; the others are dropped when it opens.
_RECHECKED_HEADERS = frozenset({PROJECT_HEADER, SUBPROTOCOL_HEADER})


class ProxyWebSocketHandler(BaseHandler, WebSocketHandler):
    """One session with a provider.

    Waits for the provider's upgrade, which its connect timeout bounds, then for whatever WebSocketRelay waits for.
    """

    def initialize(self, services: Services) -> None:
        """Start without a session."""
        super().initialize(services)
        self._context: RequestContext[WebSocketEndpoint] | None = None
        self._relay: WebSocketRelay | None = None
        self._meter: SessionRecorder = UnbilledSession()
        self._frames: ClientFrames | None = None
        self._upstream: UpstreamWebSocket | None = None
        self._held: HeldBytes | None = None
        self._accepted = False
        self._client_gone = False
        self._began_at = time.monotonic()

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the session: connect to the provider, then accept the client's handshake."""
        try:
            self._relay = await self._connect()
            if not self._client_gone:
                self.set_header(REQUEST_ID_HEADER, self.request_id)
                await super().get(*args, **kwargs)
        except UpgradeRejected as rejection:
            await self._forward_rejection(rejection)
        except RequestError as error:
            self.log_rejection(error, self._context)
            await self.respond_with_error(error)
        finally:
            self.services.capacity.discard(self)
            if not self._accepted:
                self._abandon()

    def _abandon(self) -> None:
        """Drop a session that was not opened: the client has left, or its handshake failed."""
        self.services.budgets.close_stream(self.request_id)
        if self._upstream is not None:
            self._upstream.close()

    async def _connect(self) -> WebSocketRelay:
        snapshot, admission = self.services.snapshots.current, self.services.admission
        incoming = self.incoming
        identified = admission.authenticate_upgrade(snapshot, incoming)
        context = self._context = identified if isinstance(identified, RequestContext) else await identified
        self._check_handshake()
        admission.check_capacity(context)
        self.services.capacity.add_arriving(self, context.caller.project_id)
        self._held = self.services.arriving.open(context.caller, snapshot.settings.limits)
        session = await admission.admit_upgrade(context, offered_subprotocols(incoming.headers))
        await self.services.budgets.open_stream(context, self.request_id)
        self._max_message_bytes = snapshot.settings.websockets.max_message_mb * MIB
        try:
            self._upstream = await self.services.connect(session.upstream)
        except UpgradeRejected as rejection:
            session.access.note_response(rejection.response_status, rejection.retry_after)
            raise
        if context.provider.is_proxy:
            self.request_id = self._upstream.headers.get(REQUEST_ID_HEADER, self.request_id)
        self._meter = self._session_meter(session)
        return WebSocketRelay(session, self.request_id, self, self._upstream, self._meter)

    def _session_meter(self, session: AdmittedSession) -> SessionRecorder:
        if session.billed_elsewhere:
            return UnbilledSession()
        return SessionMeter(session.context, session.access, session.reader, self.request_id, self.services)

    def _check_handshake(self) -> None:
        """Check what Tornado would reject only after the provider is connected (RFC 6455 section 4.2.1)."""
        headers = self.request.headers
        options = [option.strip().lower() for option in headers.get("Connection", "").split(",")]
        if "upgrade" not in options or not headers.get("Sec-WebSocket-Key"):
            raise BadRequest("the WebSocket handshake needs Connection: Upgrade and Sec-WebSocket-Key")
        if headers.get("Sec-WebSocket-Version") != _VERSION:
            raise BadRequest(f"Sec-WebSocket-Version must be {_VERSION}")

    async def _forward_rejection(self, rejection: UpgradeRejected) -> None:
        """Send the provider's own status and body; a provider key in the body is masked."""
        assert self._context is not None, "the provider was asked after the upgrade was admitted"
        self.log_rejection(rejection, self._context)
        context = self._context
        self.clear()
        self.set_status(rejection.response_status if rejection.response_status >= 400 else rejection.status)
        self.set_header("Content-Type", context.redaction.text(rejection.media_type) or "application/json")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        await self.finish(context.redaction.mask(rejection.body))

    # The server shuts down during the handshake (gateway/capacity.py).

    def drain(self) -> None:
        """Let the handshake end: it was accepted before the shutdown began."""

    def end(self, outcome: Outcome) -> None:
        """Break the connection: the provider has not responded in time."""
        assert isinstance(self.request.connection, Exchange)
        self.request.connection.close()

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the session."""
        context = self._context
        return context is not None and target.covers(context.caller, find_agent_session(context))

    def stop(self, stop: Stop) -> None:
        """Break the connection: the session must not open."""
        self.end(Outcome.PROXY_CLOSED)

    # Overrides of WebSocketHandler.

    def get_websocket_protocol(self) -> ClientFrames:
        """Return the reader of the client's frames."""
        assert self._held is not None, "the upgrade was admitted"
        params = _WebSocketParams(max_message_size=self.max_message_size)
        return ClientFrames(self, params=params, held=self._held)

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message of the client."""
        return self._max_message_bytes

    def check_origin(self, origin: str) -> bool:
        """Accept every origin: the credential decides, and it is never a cookie."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Return the provider's selection or the convention's default, never one that carries a token."""
        selected = self._upstream.subprotocol if self._upstream is not None else None
        if selected in subprotocols:
            return selected
        convention = self.provider.websocket
        return convention.default if convention is not None and convention.default in subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:
        """Called by Tornado when the client is connected: start relaying."""
        assert self._relay is not None
        assert self._context is not None
        self._accepted = True
        # Before the first frame, which can come before the task below begins.
        self._relay.start(self.services)
        self.services.capacity.discard(self)
        self.set_nodelay(True)
        self._context.request.drop_headers(keep=_RECHECKED_HEADERS)
        self.request.headers = HTTPHeaders()
        assert isinstance(self.ws_connection, ClientFrames)
        self._frames = self.ws_connection
        self.services.recorder.follow(self._running())
        tasks.spawn(self._run(self._relay), "session")

    async def _run(self, relay: WebSocketRelay) -> None:
        try:
            await relay.run()
        finally:
            self._relay = None  # it refers to this handler: break the cycle
            self.services.budgets.close_stream(self.request_id)
            self.services.recorder.unfollow(self.request_id)
            self._log_end(relay.closed.code)

    def _running(self) -> RunningRequest:
        assert self._context is not None
        provider, endpoint = self._context.provider.name, self._context.endpoint
        return RunningRequest(
            self._context.caller,
            self.request_id,
            provider,
            "WS",
            endpoint.path,
            self._meter.model,
            datetime.now(UTC),
            self._meter,
        )

    def _log_end(self, close_code: int) -> None:
        assert self._context is not None
        context = self._context
        end = access_log.SessionEnd(
            request_id=self.request_id,
            caller=context.caller,
            provider=context.provider.name,
            endpoint=context.endpoint.path,
            close_code=close_code,
            duration_s=time.monotonic() - self._began_at,
            records=self._meter.records,
            config_generation=context.snapshot.generation,
        )
        access_log.log_session_end(end)

    def on_message(self, message: str | bytes) -> Wait | None:
        """Relay a client's frame.  Tornado reads the next one when the result is done."""
        return None if self._relay is None else self._relay.from_client(message)

    def on_close(self) -> None:
        """Called by Tornado when the client has disconnected."""
        self._client_gone = True
        if self._held is not None:
            self._held.release()
        self._frames = None
        if self._relay is not None:
            self._relay.client_left(self.close_code, self.close_reason)

    def send_frame(self, frame: str | bytes) -> Wait | None:
        """Send a frame to the client; the result, if any, is done when the socket has taken it."""
        return None if self._frames is None else self._frames.send(frame)


def offered_subprotocols(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the subprotocols that a client offers, in its order (RFC 6455 section 4.1)."""
    values = (value for name, value in headers if name.lower() == "sec-websocket-protocol")
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())
