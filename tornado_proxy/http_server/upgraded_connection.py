"""A client's connection after its upgrade to WebSocket."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tornado.web import RequestHandler
from tornado.websocket import WebSocketProtocol13

_SWITCHING_PROTOCOLS = 101


class UpgradedOwner(Protocol):
    """The server of upgraded connections."""

    def on_open(self, connection: UpgradedConnection) -> None:
        """Called when the connection has been taken over."""

    def on_close(self, connection: UpgradedConnection) -> None:
        """Called when the connection has closed."""


class UpgradedConnection:
    """A transport to be taken over, and the bytes that have arrived; counted by the server until on_lost().

    It never waits for a request, as the connections do among which the server counts it.
    """

    __slots__ = ("_server", "data", "transport")

    new = False
    head_begun = False

    def __init__(self, server: UpgradedOwner, transport: asyncio.Transport, data: bytes) -> None:
        self._server = server
        self.transport = transport
        self.data = data
        if not transport.is_closing():
            server.on_open(self)

    def close(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def on_lost(self) -> None:
        """Called when the connection has closed."""
        self._server.on_close(self)


def accept_websocket(handler: RequestHandler, subprotocol: str | None) -> UpgradedConnection:
    """Send the 101 response to a request to upgrade, and return its connection (RFC 6455 section 4.2.2).

    Raises:
        StreamClosedError: the client has disconnected.
    """
    accept = WebSocketProtocol13.compute_accept_value(handler.request.headers["Sec-WebSocket-Key"])
    handler.clear_header("Content-Type")
    handler.set_status(_SWITCHING_PROTOCOLS)
    handler.set_header("Upgrade", "websocket")
    handler.set_header("Connection", "Upgrade")
    handler.set_header("Sec-WebSocket-Accept", accept)
    if subprotocol is not None:
        handler.set_header("Sec-WebSocket-Protocol", subprotocol)
    handler.finish()
    connection = handler.detach()
    assert isinstance(connection, UpgradedConnection)
    return connection
