"""The server side of a WebSocket: passes messages to a session, and counts the bytes of those that still arrive."""

from __future__ import annotations

from typing import Protocol

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.http_server.request_body import ByteCount
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection
from tornado_proxy.upstream.websocket.frames import FrameError
from tornado_proxy.upstream.websocket.message_protocol import MessageProtocol, Wait

#: Close code from the IANA registry.
_TRY_AGAIN_LATER = 1013


class MessageReceiver(Protocol):
    """Handles the messages of a client."""

    def from_client(self, message: str | bytes) -> Wait | None:
        """Handle a message; the next one is read when the result, if any, is done."""

    def client_left(self, code: int | None, reason: str | None) -> None:
        """Called when the client's connection has closed; `code` and `reason` are those of its close frame."""


class ClientSocket(MessageProtocol):
    """The WebSocket of a client; the message in progress counts in `held`.  Call open() after the handshake."""

    __slots__ = ("_connection", "_counted_bytes", "_held", "_receiver")

    #: As long as a client has to read the rest of an HTTP response.
    LINGER_TIMEOUT_S = 60.0

    def __init__(self, max_message_bytes: int, held: ByteCount) -> None:
        super().__init__(mask_outgoing=False, max_message_bytes=max_message_bytes)
        self._held = held
        self._counted_bytes = 0
        self._connection: UpgradedConnection | None = None
        self._receiver: MessageReceiver | None = None

    def open(self, connection: UpgradedConnection, receiver: MessageReceiver) -> None:
        """Pass the messages of `connection` to `receiver`."""
        self._connection = connection
        self._receiver = receiver
        self.attach(connection.transport, connection.data)
        connection.data = b""
        self.start()

    def detach(self) -> None:
        """Ignore all that the client still sends: its session has ended."""
        self._receiver = None

    def send_frame(self, frame: str | bytes) -> Wait | None:
        """Send a message; the result, if any, is done when the socket has taken it.

        Raises:
            StreamClosedError: the client has left.
        """
        return self.send(frame)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame; no effect on a closed connection."""
        self.start_close(code, reason or "")

    # Overrides of MessageProtocol.

    def on_message(self, message: str | bytes) -> Wait | None:
        """Pass a message on."""
        return None if self._receiver is None else self._receiver.from_client(message)

    def on_end(self) -> None:
        """Tell that the client has left."""
        self._held.release()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.client_left(self.close_code, self.close_reason)

    def on_read(self, held_bytes: int) -> None:
        """Count the bytes of incomplete messages.

        Raises:
            FrameError: they are too many.
        """
        if held_bytes < self._counted_bytes:
            self._held.release()
            self._counted_bytes = 0
        if held_bytes > self._counted_bytes:
            try:
                self._held.add(held_bytes - self._counted_bytes)
            except RequestError as error:
                raise FrameError(_TRY_AGAIN_LATER, error.message) from error
            self._counted_bytes = held_bytes

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the server."""
        super().connection_lost(exc)
        if self._connection is not None:
            self._connection.on_lost()
