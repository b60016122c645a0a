"""A WebSocket whose messages are read many at a time, and those sent in one turn of the event loop written together.

Tornado's WebSocketProtocol13 keeps the handshakes, pings and timeouts.  It reads each frame in three pieces, each of
which is a future, and creates a task for each message that it writes.  Here a read returns whatever has arrived, and
FrameReader finds the messages in it.

This module overrides private methods of WebSocketProtocol13.  Tornado is pinned to one version for it, and
tests/upstream/websocket/test_connection.py tests its behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from tornado import gen
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13, _WebSocketDelegate, _WebSocketParams

from tornado_proxy.upstream.websocket.frames import BINARY, TEXT, FrameError, FrameReader, FrameWriter
from tornado_proxy.wire.close_reason import cut_close_reason

#: Awaited before the next message of the same direction is read: this is the back-pressure of a WebSocket relay.
Wait = Coroutine[Any, Any, None]

#: Bytes of a read; also of messages that wait for the end of the turn.
_READ_BYTES = 64 * 1024

#: Messages of one connection that are handled in a turn of the loop: a read can hold ten thousand pings.
_MESSAGES_PER_TURN = 64


class MessageProtocol(WebSocketProtocol13):
    """One side of a WebSocket.

    send() writes the first message of a turn of the loop at once, so that a single one has no delay, and the others
    together when the turn is over or 64 KiB of them wait.
    """

    def __init__(self, handler: _WebSocketDelegate, *, mask_outgoing: bool, params: _WebSocketParams) -> None:
        super().__init__(handler, mask_outgoing, params)
        self._reader = FrameReader(masked=not mask_outgoing, max_message_bytes=params.max_message_size)
        self._writer = FrameWriter(masked=mask_outgoing)
        self._loop = asyncio.get_running_loop()
        #: Messages of this turn that have not been written; None if none of this turn has been written.
        self._unwritten: list[bytes] | None = None
        self._unwritten_bytes = 0
        #: The last write that the socket has not taken whole.
        self._write: asyncio.Future[None] | None = None

    def send(self, message: str | bytes) -> Wait | None:
        """Send a text message (str) or a binary message (bytes).

        Returns:
            None if the socket takes messages, else a coroutine that waits until it has taken those before this one.
            The coroutine never raises StreamClosedError: the end of the connection is reported by its reader.

        Raises:
            StreamClosedError: the connection is closed or closing.
        """
        if self.is_closing():
            raise StreamClosedError
        opcode, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        frame = self._writer.frame(opcode, data)
        if self._unwritten is None:
            self._unwritten = []
            self._loop.call_soon(self._on_turn_over)
            self._write_now(frame)
        else:
            self._unwritten.append(frame)
            self._unwritten_bytes += len(frame)
            if self._unwritten_bytes >= _READ_BYTES:
                self._write_rest()
        write = self._write
        return None if write is None or write.done() else _wait_for(write)

    def detach(self) -> None:
        """Called when the connection has closed; break the reference cycle through the stream's error.

        The frames of the error's traceback hold the connection, which holds the error.
        """
        if self.stream is not None and self.stream.error is not None:
            self.stream.error.__traceback__ = None

    def on_read(self, held_bytes: int) -> None:
        """Called before each wait with the number of bytes that belong to incomplete messages.

        Raises:
            FrameError: they are too many.
        """

    # Overrides of WebSocketProtocol13.

    async def _receive_frame_loop(self) -> None:
        try:
            while not self.client_terminated:
                self._reader.feed(await self._read())
                await self._handle_arrived()
                self.on_read(self._reader.held_bytes)
        except StreamClosedError:
            self._abort()
        except FrameError as error:
            self.close(error.code, cut_close_reason(error.reason))
            self._abort()
        finally:
            self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    async def _read(self) -> bytes:
        reading: asyncio.Future[bytes] = gen.convert_yielded(self.stream.read_bytes(_READ_BYTES, partial=True))
        if reading.done():
            await asyncio.sleep(0)  # a fast peer must not keep other connections waiting
        try:
            return await reading
        finally:
            del reading  # the traceback of its error holds this frame: break the cycle

    async def _handle_arrived(self) -> None:
        reader = self._reader
        handled = 0
        while not self.client_terminated and (message := reader.take()) is not None:
            opcode, data = message
            if opcode > BINARY:
                self._handle_message(opcode, data)  # type: ignore[arg-type]  # control frames are bytes
            else:
                wait = self._run_callback(self.handler.on_message, data)
                if wait is not None:
                    self.on_read(reader.held_bytes)
                    await wait
            handled += 1
            if not handled % _MESSAGES_PER_TURN:
                await asyncio.sleep(0)

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> asyncio.Future[None]:  # noqa: FBT001  # Tornado's signature
        """Write a control frame behind the messages that wait."""
        self._write_rest()
        return self.stream.write(self._writer.frame(opcode, data))

    # Writes.

    def _on_turn_over(self) -> None:
        with contextlib.suppress(StreamClosedError):  # reported by the reader
            self._write_rest()
        self._unwritten = None

    def _write_rest(self) -> None:
        if self._unwritten:
            data = b"".join(self._unwritten)
            self._unwritten.clear()
            self._unwritten_bytes = 0
            self._write_now(data)

    def _write_now(self, data: bytes) -> None:
        write = self._write = self.stream.write(data)
        if write.done() and write.exception() is not None:
            raise StreamClosedError


async def _wait_for(write: asyncio.Future[None]) -> None:
    try:
        await write
    except StreamClosedError:
        pass  # reported by the reader
    finally:
        del write  # as in MessageProtocol._read()
