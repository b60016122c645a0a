"""Sends WebSocket messages without a task each, and batches the messages of one turn of the event loop under TCP_CORK.

Tornado's write_message() creates a task per message, and each message becomes a TCP segment of its own.  Measured:
together with UpstreamWebSocket.listen(), which reads without a queue, a relayed message costs 37 us instead of 88; the
system call alone took 28 of the 88.

This module calls the private method `WebSocketProtocol13._write_frame`.  Tornado is pinned to one version for it, and
tests/upstream/websocket/test_connection.py tests its behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

#: Awaited before the next message of the same direction is read: this is the back-pressure of a WebSocket relay.
Wait = Coroutine[Any, Any, None]

#: Opcodes (RFC 6455 section 5.2).
_TEXT = 0x1
_BINARY = 0x2

#: Makes the kernel hold back partial segments (tcp(7)).  Linux only; elsewhere each message is sent at once.
_TCP_CORK = getattr(socket, "TCP_CORK", None)


class FrameSender:
    """Sends messages on one connection: the first of a turn of the loop at once, the others when the turn is over."""

    __slots__ = ("_loop", "_protocol", "_sent_in_turn")

    def __init__(self, protocol: object) -> None:
        assert isinstance(protocol, WebSocketProtocol13)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._sent_in_turn = 0

    def send(self, message: str | bytes) -> Wait | None:
        """Send a text message (str) or a binary message (bytes).

        Returns:
            None if the socket has taken the message, else a coroutine that waits until it has.  The coroutine never
            raises StreamClosedError: the end of the connection is reported by its reader.

        Raises:
            StreamClosedError: the connection is closed or closing.
        """
        if self._protocol.is_closing():
            raise StreamClosedError
        self._count_and_cork()
        opcode, data = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
        write = self._protocol._write_frame(fin=True, opcode=opcode, data=data)
        if not write.done():
            return _wait_for(write)
        if write.exception() is not None:
            raise StreamClosedError
        return None

    def detach(self) -> None:
        """Called when the connection has closed; break the reference cycle through the stream's error.

        The frames of the error's traceback hold the connection, which holds the error.
        """
        stream = self._protocol.stream
        if stream is not None and stream.error is not None:
            stream.error.__traceback__ = None

    def _count_and_cork(self) -> None:
        self._sent_in_turn += 1
        if self._sent_in_turn == 1:
            self._loop.call_soon(self._on_turn_over)
        elif self._sent_in_turn == 2:
            # Not for the first message: a turn with a single message, the common case, needs no system call for this.
            self._set_cork(1)

    def _on_turn_over(self) -> None:
        if self._sent_in_turn > 1:
            self._set_cork(0)
        self._sent_in_turn = 0

    def _set_cork(self, value: int) -> None:
        connection = self._protocol.stream.socket
        if _TCP_CORK is not None and connection is not None:
            with contextlib.suppress(OSError):  # the connection has just closed
                connection.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, value)


async def _wait_for(write: asyncio.Future[None]) -> None:
    with contextlib.suppress(StreamClosedError):
        await write
