"""Sending on a WebSocket: no task for a message, and messages of one turn of the loop leave together.

Tornado's write_message() makes a task for each message, and sends each by itself, which costs as much as all else on a
message's way (docs/performance.md).  `WebSocketProtocol13._write_frame`, which it is made of, is private: Tornado is
pinned for its sake too, and tests/upstream/websocket/test_connection.py holds it to its contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

#: What somebody has to be waited for.
Wait = Coroutine[Any, Any, None]

#: Opcodes (RFC 6455 section 5.2).
_TEXT = 0x1
_BINARY = 0x2

#: Holds back segments that are not full (tcp(7)); Linux alone has it, and elsewhere each message leaves by itself.
_CORK = getattr(socket, "TCP_CORK", None)


class FrameSender:
    """Sends on one connection.  The first message of a turn leaves at once, those after it when the turn is over."""

    __slots__ = ("_in_turn", "_loop", "_protocol")

    def __init__(self, protocol: object) -> None:
        assert isinstance(protocol, WebSocketProtocol13)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._in_turn = 0

    def send(self, message: str | bytes) -> Wait | None:
        """Send a text or a binary message.  Where the socket has not taken it yet, what is given waits for that.

        Raises:
            StreamClosedError: the connection has ended, or is about to; what is given never raises it.
        """
        if self._protocol.is_closing():
            raise StreamClosedError
        self._gather()
        opcode, data = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
        sent = self._protocol._write_frame(fin=True, opcode=opcode, data=data)
        if not sent.done():
            return _taken(sent)
        if sent.exception() is not None:
            raise StreamClosedError
        return None

    def detach(self) -> None:
        """The connection has ended: drop the frames that its error holds, and that hold it."""
        stream = self._protocol.stream
        if stream is not None and stream.error is not None:
            stream.error.__traceback__ = None

    def _gather(self) -> None:
        self._in_turn += 1
        if self._in_turn == 1:
            self._loop.call_soon(self._turn_is_over)
        elif self._in_turn == 2:  # the first that has company
            self._cork(1)

    def _turn_is_over(self) -> None:
        if self._in_turn > 1:
            self._cork(0)
        self._in_turn = 0

    def _cork(self, on: int) -> None:
        connection = self._protocol.stream.socket
        if _CORK is not None and connection is not None:
            with contextlib.suppress(OSError):  # it has just gone
                connection.setsockopt(socket.IPPROTO_TCP, _CORK, on)


async def _taken(sent: asyncio.Future[None]) -> None:
    with contextlib.suppress(StreamClosedError):
        await sent
