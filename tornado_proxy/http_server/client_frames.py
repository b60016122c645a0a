"""The server side of a WebSocket: counts the bytes of messages that still arrive."""

from __future__ import annotations

from tornado.websocket import WebSocketHandler, _WebSocketParams

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.http_server.request_body import ByteCount
from tornado_proxy.upstream.websocket.frames import FrameError
from tornado_proxy.upstream.websocket.message_protocol import MessageProtocol

#: Close code from the IANA registry.
_TRY_AGAIN_LATER = 1013


class ClientFrames(MessageProtocol):
    """The server side of a WebSocket; the message in progress counts in `held`."""

    def __init__(self, handler: WebSocketHandler, *, params: _WebSocketParams, held: ByteCount) -> None:
        super().__init__(handler, mask_outgoing=False, params=params)
        self._held = held
        self._counted_bytes = 0

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

    def _abort(self) -> None:
        """Close the connection.  The stream closes only after the client has read the close frame."""
        super()._abort()
        self._held.release()
