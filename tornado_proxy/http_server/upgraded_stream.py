"""A client's connection after its upgrade to WebSocket, with the methods of an IOStream that Tornado calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError

#: Unread bytes above which nothing more is read from the socket.
_MAX_UNREAD_BYTES = 64 * 1024


class StreamTransport(Protocol):
    """The connection of a stream."""

    closed: bool
    socket: socket.socket | None

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; the result is done when the socket has taken all bytes."""

    def pause_reading(self) -> None:
        """Read nothing more."""

    def resume_reading(self) -> None:
        """Read again."""

    def close_lingering(self) -> None:
        """Close when the client has read everything."""


class UpgradedStream:
    """Reads and writes the bytes of a WebSocket.

    Args:
        transport: The connection.
        data: Bytes that have arrived with the request to upgrade.
    """

    def __init__(self, transport: StreamTransport, data: bytes) -> None:
        self.io_loop = IOLoop.current()
        #: Always None; an IOStream has the error that has closed it.
        self.error: BaseException | None = None
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(data)
        self._close_callback: Callable[[], object] | None = None
        self._closed = False
        #: The read that waits for bytes: its future, its size, and whether fewer bytes are enough.
        self._waiting: tuple[asyncio.Future[bytes], int, bool] | None = None

    @property
    def socket(self) -> socket.socket | None:
        """The socket; None after the connection has closed."""
        return self._transport.socket

    def read_bytes(self, num_bytes: int, partial: bool = False) -> asyncio.Future[bytes]:  # noqa: FBT001, FBT002  # Tornado's signature
        """Return a future of `num_bytes` bytes; of up to as many if `partial`.

        Its error is StreamClosedError if the connection has closed.
        """
        future: asyncio.Future[bytes] = self._loop.create_future()
        available = len(self._buffer)
        if available >= num_bytes or (partial and available):
            future.set_result(self._take(num_bytes))
            if len(self._buffer) <= _MAX_UNREAD_BYTES:
                self._transport.resume_reading()
        elif self._closed:
            future.set_exception(StreamClosedError())
        else:
            self._waiting = future, num_bytes, partial
            self._transport.resume_reading()
        return future

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; the result is done when the socket has taken all bytes."""
        return self._transport.write(data)

    def closed(self) -> bool:
        """Return True if the connection has closed."""
        return self._closed or self._transport.closed

    def set_nodelay(self, value: bool) -> None:  # noqa: FBT001  # Tornado's signature
        """Do nothing: Nagle's algorithm is off on all connections."""

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Set the function that is called once when the connection has closed."""
        self._close_callback = callback
        if self._closed:
            self._call_back()

    def close(self) -> None:
        """Close the connection after the bytes written so far."""
        self._transport.close_lingering()
        self.on_closed()

    # Called by the connection.

    def feed(self, data: bytes) -> None:
        """Receive bytes of the client."""
        if self._closed:
            return
        self._buffer += data
        if self._waiting is not None:
            future, size, partial = self._waiting
            if len(self._buffer) >= size or partial:
                self._waiting = None
                if not future.cancelled():
                    future.set_result(self._take(size))
        if len(self._buffer) > _MAX_UNREAD_BYTES and self._waiting is None:
            self._transport.pause_reading()

    def on_closed(self) -> None:
        """Called when the connection has closed."""
        if self._closed:
            return
        self._closed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting[0].done():
            waiting[0].set_exception(StreamClosedError())
        self._call_back()

    def _take(self, size: int) -> bytes:
        if len(self._buffer) <= size:
            data, self._buffer = bytes(self._buffer), bytearray()
        else:
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
        return data

    def _call_back(self) -> None:
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            self._loop.call_soon(callback)
