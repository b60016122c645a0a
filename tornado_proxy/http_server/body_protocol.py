"""Reads the rest of a large body into the memory in which its receiver collects it.

The event loop copies the bytes for data_received(), and the receiver copies it again: for 1 MB both take 0.1 ms.

    ClientConnection ── a body that lacks 128 KiB ──> BodyProtocol ── its last byte ──> ClientConnection
                                                           └── the receiver has no memory ──^
"""

from __future__ import annotations

import asyncio

from tornado_proxy.http_server.client_transport import ClientTransport
from tornado_proxy.http_server.exchange import BodyMemory, Exchange
from tornado_proxy.http_server.request_parser import RequestParser

#: Missing bytes of a body from which on the change of protocols is worth its time, four system calls.
MIN_MISSING_BYTES = 128 * 1024

#: Memory for bytes whose receiver has none any more; they are taken from it in the same call of the event loop.
_UNUSED = memoryview(bytearray(64 * 1024))


class BodyOwner(asyncio.Protocol):
    """The protocol of the connection before and after the body."""

    def body_received(self) -> None:
        """Called when the parser has counted the last byte of the body."""


class BodyProtocol(asyncio.BufferedProtocol):
    """The protocol of a connection while the rest of a body arrives.

    Args:
        connection: The protocol before and after it.
        transport: The transport of the connection.
        parser: Counts the body.
        exchange: The request, whose receiver has memory for it.
    """

    def __init__(
        self, connection: BodyOwner, transport: ClientTransport, parser: RequestParser, exchange: Exchange
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._parser = parser
        self._exchange = exchange
        self._memory: BodyMemory | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory for the next bytes, at most those of the body."""
        memory = self._memory = self._exchange.find_memory()
        missing_bytes = self._parser.counted_bytes
        return _UNUSED[:missing_bytes] if memory is None else memory.get_buffer(missing_bytes)

    def buffer_updated(self, nbytes: int) -> None:
        """Count bytes that have been read into the memory; end after the last one."""
        memory, self._memory = self._memory, None
        if memory is None:
            self._end()
            self._connection.data_received(bytes(_UNUSED[:nbytes]))
            return
        memory.advance(nbytes)
        self._exchange.body_read(nbytes)
        self._parser.count(nbytes)
        if not self._parser.counted_bytes:
            self._end()
            self._connection.body_received()

    def _end(self) -> None:
        """Give the transport back.  uvloop keeps this object until the connection closes, so it drops the request."""
        self._transport.set_protocol(self._connection)
        del self._parser, self._exchange

    def eof_received(self) -> None:
        """Close: a client that has shut down its side has left."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """Let writes wait."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Let writes continue."""
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler that the client has left."""
        self._connection.connection_lost(exc)
