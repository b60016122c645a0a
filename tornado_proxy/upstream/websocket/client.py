"""Tornado's WebSocket client, which checks the provider's upgrade and reports messages that are too large."""

from __future__ import annotations

import asyncio

from tornado.httpclient import HTTPRequest, _RequestProxy
from tornado.httputil import HTTPHeaders, HTTPInputError, RequestStartLine, ResponseStartLine
from tornado.netutil import Resolver
from tornado.websocket import WebSocketClientConnection, WebSocketProtocol13

from tornado_proxy.upstream.websocket.frames import MESSAGE_TOO_BIG
from tornado_proxy.upstream.websocket.message_protocol import MessageProtocol

#: Bytes of the response to a rejected upgrade.  An error response has some 500; Tornado's own limit is 100 MiB.
_MAX_REJECTION_BYTES = 1024 * 1024

_SWITCHING_PROTOCOLS = 101


class ProviderConnection(WebSocketClientConnection):
    """A connection to a provider.  `message_too_big` is True if a message of the provider has ended it."""

    def __init__(
        self,
        request: HTTPRequest,
        max_message_bytes: int,
        subprotocols: list[str] | None,
        resolver: Resolver | None = None,
    ) -> None:
        # The proxy object adds Tornado's defaults to the request, as websocket_connect() does.
        super().__init__(
            _RequestProxy(request, HTTPRequest._DEFAULTS),  # type: ignore[arg-type]  # a proxy of the request
            max_message_size=max_message_bytes,
            subprotocols=subprotocols,
            resolver=resolver,
        )
        self.max_body_size = _MAX_REJECTION_BYTES
        self.message_too_big = False

    async def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        """Called by Tornado with the response head."""
        assert isinstance(start_line, ResponseStartLine)
        if start_line.code == _SWITCHING_PROTOCOLS and not self._is_valid_upgrade(headers):
            # Tornado checks it with assert statements, which log a traceback, or check nothing under -O.
            raise HTTPInputError("invalid response to a WebSocket upgrade")
        await super().headers_received(start_line, headers)

    def _is_valid_upgrade(self, headers: HTTPHeaders) -> bool:
        return (
            headers.get("Upgrade", "").lower() == "websocket"
            and headers.get("Connection", "").lower() == "upgrade"
            and headers.get("Sec-WebSocket-Accept") == WebSocketProtocol13.compute_accept_value(self.key)
            and "Sec-WebSocket-Extensions" not in headers  # none was offered
        )

    def get_websocket_protocol(self) -> MessageProtocol:
        """Return the reader of the provider's frames."""
        return _ProviderFrames(self, mask_outgoing=True, params=self.params)


class _ProviderFrames(MessageProtocol):
    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame.  Tornado sends MESSAGE_TOO_BIG on its own."""
        if code == MESSAGE_TOO_BIG and isinstance(self.handler, ProviderConnection):
            self.handler.message_too_big = True
        super().close(code, reason)


def open_connection(
    request: HTTPRequest, max_message_bytes: int, subprotocols: list[str] | None, resolver: Resolver | None = None
) -> asyncio.Future[WebSocketClientConnection]:
    """Open a WebSocket; the result is done after the upgrade, or raises what tornado.websocket_connect() raises.

    `resolver` looks the name up, None for Tornado's own.
    """
    return ProviderConnection(request, max_message_bytes, subprotocols, resolver).connect_future


def drop_handshake(connection: WebSocketClientConnection) -> None:
    """Drop the request of an open connection and the parser of its response: Tornado needs them no more."""
    del connection.request, connection.connection
