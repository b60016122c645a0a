"""Reads the WebSocket frames of a client: masked ones only, and counts the bytes of a message that still arrives."""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.http_server.request_body import ByteCount
from tornado_proxy.wire.close_reason import cut_close_reason

#: Close codes (RFC 6455 section 7.4.1; 1013 is from the IANA registry of close codes).
_PROTOCOL_ERROR, _MESSAGE_TOO_BIG, _TRY_AGAIN_LATER = 1002, 1009, 1013

#: The bit of a frame's second byte that says that its payload is masked (RFC 6455 section 5.2).
_MASKED = 0x80

#: Bytes of a payload that are read at a time; a smaller payload is one read.
_PIECE_BYTES = 64 * 1024


class ClientFrames(WebSocketProtocol13):
    """The server side of a WebSocket; the message in progress counts in `held`."""

    def __init__(
        self, handler: WebSocketHandler, *, mask_outgoing: bool, params: _WebSocketParams, held: ByteCount
    ) -> None:
        super().__init__(handler, mask_outgoing, params)
        self._held = held
        self._at_frame_start = False
        #: True if the frame is one of several of its message.
        self._in_parts = False

    async def _receive_frame(self) -> None:
        self._at_frame_start = True
        await super()._receive_frame()

    async def _read_bytes(self, n: int) -> bytes:
        """Read `n` bytes of a frame.  Called by Tornado with the parts of a frame, first its two fixed bytes."""
        if n > _PIECE_BYTES:
            return await self._read_large(n)
        data = await super()._read_bytes(n)
        if self._at_frame_start:
            self._at_frame_start = False
            self._begin_frame(data)
        elif self._in_parts:
            self._count(n)
        return data

    def _begin_frame(self, head: bytes) -> None:
        # RFC 6455 section 5.1: a server must close on an unmasked frame.  Masks keep a page from writing bytes of its
        # choice to programs between it and the server.
        if not head[1] & _MASKED:
            self._refuse(_PROTOCOL_ERROR, "client frames must be masked")
        # A small message in one frame arrives whole, so it is not worth counting.
        self._in_parts = not head[0] & self.FIN or self._fragmented_message_buffer is not None

    async def _read_large(self, size: int) -> bytes:
        payload = bytearray()
        while len(payload) < size:
            piece = await self.stream.read_bytes(min(_PIECE_BYTES, size - len(payload)), partial=True)
            self._count(len(piece))
            payload += piece
        self._wire_bytes_in += size
        return bytes(payload)

    def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        """Called by Tornado with each complete message."""
        if self._fragmented_message_buffer is None:
            self._held.release()
        return super()._handle_message(opcode, data)

    def _count(self, size: int) -> None:
        try:
            self._held.add(size)
        except RequestError as error:
            self._refuse(_TRY_AGAIN_LATER, error.message)

    def _refuse(self, code: int, reason: str) -> None:
        self.close(code, cut_close_reason(reason))
        self._abort()
        raise StreamClosedError

    def _abort(self) -> None:
        """Close the connection.  The stream closes only after the client has read the close frame."""
        super()._abort()
        self._held.release()
