"""The transport of a client's connection: writes that can be awaited, and the ways to close."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache

from tornado.iostream import StreamClosedError

#: A value of SO_LINGER with which close() sends RST instead of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

#: Seconds that a client has to read the rest of the last response and close.
_LINGER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """The facts of a connection that Tornado copies into its requests."""

    remote_ip: str
    protocol: str


class ClientTransport:
    """Writes to a client and closes its connection.

    open ── close_lingering() ──> FIN sent, received bytes are dropped ── the client closes, or 60 s ──> closed
      └──── abort(), the client closes ────────────────────────────────────────────────────────────────────^

    Args:
        transport: The transport; its protocol calls pause(), resume() and lose().
        connection: Its socket.
        context: What requests know of the connection.
    """

    def __init__(
        self, transport: asyncio.Transport, connection: socket.socket | None, context: ConnectionContext
    ) -> None:
        self.context = context
        self.socket = connection
        #: True if nothing can be written any more.
        self.closed = False
        self.lingering = False
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._linger_timer: asyncio.TimerHandle | None = None
        self._reading = True
        self._paused = False
        #: Done when the socket has taken all bytes; one object for all connections whose sockets have taken all.
        self._drained = _make_done_future(self._loop)

    @property
    def drained(self) -> asyncio.Future[None]:
        """A future that is done when the socket has taken all bytes; its error is StreamClosedError after the close."""
        if self.closed:
            # Not kept: the traceback of its error holds the frames that await it, which hold this connection.
            failed: asyncio.Future[None] = self._loop.create_future()
            _fail(failed)
            return failed
        if self._drained.cancelled():  # by the task that awaited it; others await it too
            self._drained = self._loop.create_future()
            if not self._paused:
                self._drained.set_result(None)
        return self._drained

    def limit_writes(self) -> None:
        """Let each write wait until the socket has taken it.  May call pause() of the protocol."""
        # A write that the socket has not taken whole pauses at once, and resumes when the socket has taken all.  A
        # transport of TLS pauses at `high` bytes, others above; to TLS, the socket is a buffer of up to 64 KiB.
        self._transport.set_write_buffer_limits(high=0 if self._transport.can_write_eof() else 1, low=0)

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; return a future that is done when the socket has taken all bytes.

        Its error is StreamClosedError if the client has left.
        """
        if not self.closed:
            self._transport.write(data)
            if self._transport.is_closing():  # the write has failed
                self._close_for_writes()
            elif not self._drained.cancelled():
                return self._drained
        return self.drained

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass what the client sends from now on to `protocol`."""
        if not self._transport.is_closing():
            self._transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        """Read nothing more until resume_reading()."""
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def close_lingering(self) -> None:
        """Send FIN after the bytes written so far, and close when the client has closed (RFC 9112 section 9.6).

        close() on a socket with unread data, or data that arrives after close(), makes the kernel reset the
        connection, and a reset discards the response bytes that the client has not read.  nginx does the same.
        """
        if self.lingering or self._transport.is_closing():
            return
        self.lingering = True
        self._close_for_writes()
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS: a close_notify has the same effect
        self._linger_timer = self._loop.call_later(_LINGER_TIMEOUT_S, self._transport.abort)

    def abort(self, *, reset: bool = False) -> None:
        """Close the connection at once; unsent bytes are lost.  `reset` sends RST instead of FIN."""
        if reset and self.socket is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close_for_writes()
        self._transport.abort()

    def release(self) -> asyncio.Transport:
        """Return the transport, which another protocol takes over."""
        self.socket = None
        return self._transport

    # Called by the protocol.

    def pause(self) -> None:
        """Called when the socket has not taken all bytes."""
        self._paused = True
        if self._drained.done():
            self._drained = self._loop.create_future()

    def resume(self) -> None:
        """Called when the socket has taken all bytes."""
        self._paused = False
        if not self._drained.done():
            self._drained.set_result(None)

    def lose(self) -> None:
        """Called when the connection has closed."""
        self._close_for_writes()
        self.socket = None  # the server counts open sockets by their objects
        if self._linger_timer is not None:
            self._linger_timer.cancel()

    def _close_for_writes(self) -> None:
        self.closed = True
        if not self._drained.done():
            _fail(self._drained)
            self._drained = self._loop.create_future()
            self._drained.cancel()


@lru_cache(maxsize=1)
def _make_done_future(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    done: asyncio.Future[None] = loop.create_future()
    done.set_result(None)
    return done


def _fail(future: asyncio.Future[None]) -> None:
    future.set_exception(StreamClosedError())
    future.exception()  # marks it as retrieved: it may never be awaited
