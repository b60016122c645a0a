"""The WebSocket handler: has the upgrade admitted, connects to the provider, and only then accepts the client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from tornado.iostream import StreamClosedError

from tornado_proxy import tasks
from tornado_proxy.auth.credentials import PROJECT_HEADER, SUBPROTOCOL_HEADER
from tornado_proxy.domain.errors import BadRequest, RequestError, UpgradeRejected
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission.admitted import AdmittedSession
from tornado_proxy.gateway.admission.capacity import HeldBytes
from tornado_proxy.gateway.admission.stops import find_agent_session
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.realtime.meter import SessionMeter, SessionRecorder, UnbilledSession
from tornado_proxy.gateway.realtime.open_session import SessionFacts, run_session
from tornado_proxy.gateway.realtime.relay import WebSocketRelay
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.client_socket import ClientSocket
from tornado_proxy.http_server.tornado_request import find_connection
from tornado_proxy.http_server.upgraded_connection import accept_websocket
from tornado_proxy.providers.contract import WebSocketEndpoint
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket

#: The only version of the protocol (RFC 6455 section 4.1).
_VERSION = "13"

#: Headers that each check of the credential of an open session reads again; the others are dropped when it opens.
_RECHECKED_HEADERS = frozenset({PROJECT_HEADER, SUBPROTOCOL_HEADER})


class ProxyWebSocketHandler(BaseHandler):
    """The handshake of one session with a provider; nothing refers to it once the session is open.

    Waits for the provider's upgrade, which its connect timeout bounds.
    """

    def initialize(self, services: Services) -> None:
        """Start without a session."""
        super().initialize(services)
        self._context: RequestContext[WebSocketEndpoint] | None = None
        self._upstream: UpstreamWebSocket | None = None
        self._held: HeldBytes | None = None
        self._accepted = False
        self._client_gone = False
        self._began_at = time.monotonic()

    async def get(self) -> None:
        """Open the session: connect to the provider, then accept the client's handshake."""
        try:
            session = await self._connect()
            if not self._client_gone:
                with contextlib.suppress(StreamClosedError):  # the client has just left
                    self._accept(session)
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

    async def _connect(self) -> AdmittedSession:
        """Have the upgrade admitted, and connect to the provider."""
        snapshot, admission = self.services.snapshots.current, self.services.admission
        incoming = self.incoming
        identified = admission.authenticate_upgrade(snapshot, incoming)
        context = self._context = identified if isinstance(identified, RequestContext) else await identified
        self._check_handshake()
        admission.check_capacity(context)
        self.services.capacity.add_arriving(self, context.caller.project_id)
        self._held = self.services.arriving.open(context.caller, snapshot.settings.limits)
        admitted = await admission.admit_upgrade(context, offered_subprotocols(incoming.headers))
        await self.services.budgets.open_stream(context, self.request_id)
        try:
            self._upstream = await self.services.connect(admitted.upstream)
        except UpgradeRejected as rejection:
            admitted.access.note_response(rejection.response_status, rejection.retry_after)
            raise
        if context.provider.is_proxy:
            self.request_id = self._upstream.headers.get(REQUEST_ID_HEADER.lower(), self.request_id)
        return admitted.opened()

    def _accept(self, session: AdmittedSession) -> None:
        """Accept the client's handshake, and start relaying."""
        assert self._upstream is not None, "the provider is connected"
        assert self._held is not None, "the upgrade was admitted"
        context, services = session.context, self.services
        client = ClientSocket(context.snapshot.settings.websockets.max_message_mb * MIB, self._held)
        meter = self._session_meter(session)
        relay = WebSocketRelay(session, self.request_id, client, self._upstream, meter)
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        connection = accept_websocket(self, self._select_subprotocol(context, self._upstream.subprotocol))
        self._accepted = True
        relay.start(services)
        services.capacity.discard(self)
        context.request.drop_headers(keep=_RECHECKED_HEADERS)
        facts = SessionFacts(self.request_id, context, meter, self._began_at)
        tasks.spawn(run_session(relay, client, facts, services), "session")
        client.open(connection, relay)

    def _session_meter(self, session: AdmittedSession) -> SessionRecorder:
        if session.billed_elsewhere:
            return UnbilledSession()
        return SessionMeter(session.context, session.access, session.reader, self.request_id, self.services)

    def _check_handshake(self) -> None:
        """Check the client's handshake before the provider is connected (RFC 6455 section 4.2.1)."""
        headers = self.request.headers
        options = [option.strip().lower() for option in headers.get("Connection", "").split(",")]
        if "upgrade" not in options or not headers.get("Sec-WebSocket-Key"):
            raise BadRequest("the WebSocket handshake needs Connection: Upgrade and Sec-WebSocket-Key")
        if headers.get("Sec-WebSocket-Version") != _VERSION:
            raise BadRequest(f"Sec-WebSocket-Version must be {_VERSION}")

    def _select_subprotocol(self, context: RequestContext[WebSocketEndpoint], selected: str | None) -> str | None:
        """Return the provider's selection or the convention's default, never one that carries a token."""
        offered = offered_subprotocols(context.request.headers)
        if selected in offered:
            return selected
        convention = self.provider.websocket
        return convention.default if convention is not None and convention.default in offered else None

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

    # The server shuts down during the handshake (gateway/admission/capacity.py).

    def drain(self) -> None:
        """Let the handshake end: it was accepted before the shutdown began."""

    def end(self, outcome: Outcome) -> None:
        """Break the connection: the provider has not responded in time."""
        find_connection(self.request).close()

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the session."""
        context = self._context
        return context is not None and target.covers(context.caller, find_agent_session(context))

    def stop(self, stop: Stop) -> None:
        """Break the connection: the session must not open."""
        self.end(Outcome.PROXY_CLOSED)

    def on_connection_close(self) -> None:
        """Called by Tornado when the client disconnects during the handshake."""
        super().on_connection_close()
        self._client_gone = True


def offered_subprotocols(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the subprotocols that a client offers, in its order (RFC 6455 section 4.1)."""
    values = (value for name, value in headers if name.lower() == "sec-websocket-protocol")
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())
