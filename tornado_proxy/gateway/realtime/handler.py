"""The WebSocket handler: has the upgrade admitted, connects the provider, and only then accepts the client."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from tornado.util import ObjectDict
from tornado.websocket import WebSocketHandler

from tornado_proxy import tasks
from tornado_proxy.domain.errors import BadRequest, RequestError, UpgradeRejected
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission import RequestContext, log_refusal, provider_access
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.realtime.meter import SocketMeter, UnbilledMeter
from tornado_proxy.gateway.realtime.relay import WebSocketRelay
from tornado_proxy.gateway.services import Services
from tornado_proxy.gateway.socket_admission import admit_upgrade, offered_subprotocols, open_reader, socket_request
from tornado_proxy.observability import access_log
from tornado_proxy.providers.contract import WebSocketEndpoint
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket, connect
from tornado_proxy.upstream.websocket.frame_sender import FrameSender, Wait
from tornado_proxy.wire.redaction import Redactor

_log = logging.getLogger("tornado_proxy.access")

#: What browsers are told to select when the provider has not selected anything (OpenAI's word).
_REALTIME = "realtime"

_VERSION = "13"


class ProxyWebSocketHandler(BaseHandler, WebSocketHandler):
    """One session with a provider.

    Waits: for the provider's upgrade (its connect time-out ends it), then whatever WebSocketRelay waits for.
    """

    def initialize(self, services: Services) -> None:
        """Begin without a session."""
        super().initialize(services)
        self.ui = ObjectDict()  # as in ProxyHandler
        self._entry: RequestContext[WebSocketEndpoint] | None = None
        self._relay: WebSocketRelay | None = None
        self._frames: FrameSender | None = None
        self._upstream: UpstreamWebSocket | None = None
        self._opened = False
        self._gone = False
        self._began = time.monotonic()

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Serve the session to its end."""
        try:
            self._relay = await self._connect()
        except UpgradeRejected as refused:
            await self._pass_refusal(refused)
            return
        except RequestError as error:
            log_refusal(self.request_id, error, self._entry)
            await self.respond_with_error(error)
            return
        if self._gone and self._upstream is not None:
            self._upstream.close()
            return
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        try:
            await super().get(*args, **kwargs)
        finally:
            if not self._opened and self._upstream is not None:
                self._upstream.close()  # the handshake failed

    async def _connect(self) -> WebSocketRelay:
        snapshot = self.services.snapshots.current
        headers = list(self.request.headers.get_all())
        self._entry = entry = admit_upgrade(snapshot, self.request.uri or "", headers, datetime.now(UTC))
        self._check_handshake()
        self.services.in_flight.check(snapshot.settings.limits.max_streams)
        offered = offered_subprotocols(headers)
        reader = await open_reader(entry, offered, self.services.ownership)
        # A call that was made here is metered by its sideband; charged here too, it would be on the bill twice.
        made_here = await self.services.ownership.made_here(entry, reader.references)
        self._max_message_bytes = snapshot.settings.websockets.max_message_mb * MIB
        self._upstream = await connect(socket_request(entry, offered))
        billed = SocketMeter(entry, reader, self.request_id, self.services)
        meter = self._meter = UnbilledMeter(reader) if made_here else billed
        return WebSocketRelay(entry, reader, self, self._upstream, meter)

    def _check_handshake(self) -> None:
        """Look at what Tornado would refuse after the provider has been connected (RFC 6455 section 4.2.1)."""
        headers = self.request.headers
        if "upgrade" not in headers.get("Connection", "").lower() or not headers.get("Sec-WebSocket-Key"):
            raise BadRequest("the headers of a WebSocket handshake are not complete")
        if headers.get("Sec-WebSocket-Version") != _VERSION:
            raise BadRequest(f"Sec-WebSocket-Version must be {_VERSION}")

    async def _pass_refusal(self, refused: UpgradeRejected) -> None:
        """The provider's own status and words; its key, should it echo one, masked."""
        log_refusal(self.request_id, refused, self._entry)
        assert self._entry is not None
        scrub = Redactor(provider_access(self._entry)[1])
        self.clear()
        self.set_status(refused.response_status if refused.response_status >= 400 else refused.status)
        self.set_header("Content-Type", refused.media_type or "application/json")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        await self.finish(scrub.feed(refused.body) + scrub.close())

    # What Tornado asks of a WebSocketHandler.

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message of the client."""
        return self._max_message_bytes

    def check_origin(self, origin: str) -> bool:
        """Browsers of any origin may come: the credential decides, and no cookie is one."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """What the provider selected, never what carries a token."""
        selected = self._upstream.subprotocol if self._upstream is not None else None
        if selected in subprotocols:
            return selected
        return _REALTIME if _REALTIME in subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:
        """The client is connected, too."""
        assert self._relay is not None
        self._opened = True
        self.set_nodelay(True)
        self._frames = FrameSender(self.ws_connection)
        tasks.spawn(self._run(self._relay), "session")

    async def _run(self, relay: WebSocketRelay) -> None:
        try:
            await relay.run(self.services)
        finally:
            self._relay = None  # it holds this handler
            self._log_end(relay.closed.code)

    def _log_end(self, close_code: int) -> None:
        assert self._entry is not None
        match = self._entry.match
        end = access_log.SessionEnd(
            request_id=self.request_id,
            caller=self._entry.caller,
            provider=match.provider.name,
            endpoint=match.endpoint.path,
            close_code=close_code,
            duration_s=time.monotonic() - self._began,
            records=self._meter.records,
            config_generation=self._entry.snapshot.generation,
        )
        access_log.log_session_end(end)

    def on_message(self, message: str | bytes) -> Wait | None:
        """A frame of the client; Tornado reads the next one when what this gives has been awaited."""
        return None if self._relay is None else self._relay.from_client(message)

    def on_close(self) -> None:
        """The client has gone."""
        self._gone = True
        if self._frames is not None:
            self._frames.detach()
            self._frames = None
        if self._relay is not None:
            self._relay.client_left(self.close_code, self.close_reason)

    def send_frame(self, frame: str | bytes) -> Wait | None:
        """Send; where the socket has not taken it yet, what is given waits for that."""
        return None if self._frames is None else self._frames.send(frame)
