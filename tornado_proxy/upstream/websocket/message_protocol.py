"""One side of an open WebSocket, on an asyncio transport; both sides of the proxy use it.

    data_received ──> FrameReader ──> on_message ──> a wait, if any; meanwhile nothing is read ──> the next message
    send ──> the first message of a turn of the loop at once, the others of that turn together ──> transport

    OPEN ── start_close() ──> CLOSING ── close frame of the peer, or CLOSE_TIMEOUT_S ──> ENDED ──> on_end
      ├── close frame of the peer, which gets the same code back ────────────────────────^
      ├── a frame that is not valid, after a close frame that says so ───────────────────^
      └── the connection breaks; messages that have arrived before are handled ──────────^

Source: RFC 6455 sections 5.5 and 7.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any

from tornado.iostream import StreamClosedError

from tornado_proxy import tasks
from tornado_proxy.upstream.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    FrameWriter,
)
from tornado_proxy.wire.close_reason import cut_close_reason

#: Awaited before the next message of the same direction is read: this is the back-pressure of a WebSocket relay.
Wait = Coroutine[Any, Any, None]

#: Seconds that the peer has to confirm a close.
CLOSE_TIMEOUT_S = 5.0

#: Close codes that must not be sent in a frame (RFC 6455 section 7.4); 1004 is reserved without a meaning.
UNSENDABLE_CODES = frozenset({1004, 1005, 1006, 1015})

_NORMAL_CLOSURE = 1000

#: Bytes of messages that wait for the end of the turn.
_MAX_UNWRITTEN_BYTES = 64 * 1024

#: Messages of one connection, and parts of them, that are handled in a turn of the loop: a read can hold ten thousand
#: pings.
_MESSAGES_PER_TURN = 64

#: By whether frames are masked.
_WRITERS = {masked: FrameWriter(masked=masked) for masked in (False, True)}

_pack_code = struct.Struct(">H").pack
_unpack_code = struct.Struct(">H").unpack_from


class _State(Enum):
    """The module docstring draws the transitions."""

    OPEN = auto()
    CLOSING = auto()
    ENDED = auto()


class MessageProtocol(asyncio.Protocol):
    """Reads and writes messages.  A subclass handles them: attach() it to a connection, then start().

    Args:
        mask_outgoing: True on the side of a client.
        max_message_bytes: Limit of a received message.
    """

    __slots__ = (
        "_busy", "_loop", "_pending_pong", "_reader", "_reading", "_state", "_timer", "_transport", "_unwritten",
        "_unwritten_bytes", "_waiters", "_writer", "_writing_paused", "close_code", "close_reason", "fault",
    )  # fmt: skip

    #: Seconds that the peer has to read the rest and close the connection after the WebSocket has ended.
    LINGER_TIMEOUT_S = CLOSE_TIMEOUT_S

    def __init__(self, *, mask_outgoing: bool, max_message_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(masked=not mask_outgoing, max_message_bytes=max_message_bytes)
        self._writer = _WRITERS[mask_outgoing]
        self._state = _State.OPEN
        #: None before attach(), and after the connection has closed.
        self._transport: asyncio.Transport | None = None
        self._reading = True
        #: True before start(), and while a message is handled or others are due in a later turn.
        self._busy = True
        self._writing_paused = False
        #: Messages of this turn that have not been written; None if none of this turn has been written.
        self._unwritten: list[bytes] | None = None
        self._unwritten_bytes = 0
        #: Done when the socket has taken all bytes; None if nothing waits for that.
        self._waiters: list[asyncio.Future[None]] | None = None
        self._pending_pong: bytes | None = None
        #: Ends a close that the peer does not confirm, then a connection that it does not close.
        self._timer: asyncio.TimerHandle | None = None
        #: The code and reason of the peer's close frame.
        self.close_code: int | None = None
        self.close_reason: str | None = None
        #: The frame that has ended the connection because it is not valid.
        self.fault: FrameError | None = None

    def attach(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take over a connection after its handshake; `data` has arrived behind it."""
        if transport.is_closing():
            return  # start() ends the WebSocket
        self._transport = transport
        # A write that the socket has not taken whole pauses at once, and resumes when the socket has taken all.  A
        # transport of TLS pauses at `high` bytes, others above.
        transport.set_write_buffer_limits(high=0 if transport.can_write_eof() else 1, low=0)
        transport.set_protocol(self)
        self._reader.feed(data)
        self._stop_reading()

    def start(self) -> None:
        """Handle the messages that have arrived, then those that arrive."""
        self._loop.call_soon(self._handle_arrived)

    @property
    def is_closing(self) -> bool:
        """True if no message can be sent any more."""
        transport = self._transport
        return self._state is not _State.OPEN or transport is None or transport.is_closing()

    def send(self, message: str | bytes) -> Wait | None:
        """Send a text message (str) or a binary message (bytes).

        Returns:
            None if the socket takes messages, else a coroutine that waits until it has taken those before this one.
            The coroutine never raises StreamClosedError: on_end() reports the end of the connection.

        Raises:
            StreamClosedError: the connection is closed or closing.
        """
        if self.is_closing:
            raise StreamClosedError
        opcode, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        frame = self._writer.frame(opcode, data)
        if self._unwritten is None:
            self._unwritten = []
            self._loop.call_soon(self._on_turn_over)
            self._write(frame)
        else:
            self._unwritten.append(frame)
            self._unwritten_bytes += len(frame)
            if self._unwritten_bytes >= _MAX_UNWRITTEN_BYTES:
                self._write_rest()
        return self._wait_until_taken() if self._writing_paused else None

    def start_close(self, code: int | None, reason: str) -> None:
        """Send a close frame behind the messages that wait; no effect on a closed or closing connection."""
        if self._state is not _State.OPEN:
            return
        self._state = _State.CLOSING
        self._write_control(CLOSE, _make_close(code, reason))
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._end)

    # For subclasses.

    def on_message(self, message: str | bytes) -> Wait | None:
        """Handle a message; the next one is handled after the result, if any."""
        raise NotImplementedError  # abstract: each side defines it

    def on_end(self) -> None:
        """Called once, when the WebSocket has ended and the last message has been handled."""

    def on_read(self, held_bytes: int) -> None:
        """Called before each wait with the number of bytes that belong to incomplete messages.

        Raises:
            FrameError: they are too many.
        """

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """Handle the messages in `data`."""
        if self._state is _State.ENDED:
            return
        self._reader.feed(data)
        if not self._busy:
            self._handle_arrived()

    def eof_received(self) -> None:
        """Close: a peer that has shut down its side has left."""
        if self._transport is not None and self._state is not _State.ENDED:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Let messages wait."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let messages pass."""
        self._writing_paused = False
        self._release_waiters()
        pong, self._pending_pong = self._pending_pong, None
        if pong is not None and self._state is _State.OPEN:
            self._write_control(PONG, pong)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, after the messages that have arrived."""
        self._transport = None
        self._release_waiters()
        if self._state is _State.ENDED:
            self._stop_timer()
        elif not self._busy:
            self._end()

    # Messages that arrive.

    def _handle_arrived(self) -> None:
        """Handle messages until one must be waited for, or no more are complete."""
        self._busy = True
        try:
            wait = self._handle_some()
        except FrameError as error:
            self._fail(error)
            return
        except BaseException:
            self._end()
            self._rest()
            raise
        if wait is not None:
            self._stop_reading()
            tasks.spawn(self._continue_after(wait), "websocket message")

    def _handle_some(self) -> Wait | None:
        """Return the wait of the last message, if any; else the next ones are handled when they arrive or are due."""
        reader = self._reader
        for _ in range(_MESSAGES_PER_TURN):
            if self._state is _State.ENDED:
                self._rest()
                return None
            message = reader.take()
            if message is None:
                self.on_read(reader.held_bytes)
                self._rest()
                return None
            opcode, data = message
            if opcode > BINARY:
                self._handle_control(opcode, data)  # type: ignore[arg-type]  # control frames are bytes
                continue
            if opcode == CONTINUATION:
                continue
            wait = self.on_message(data)
            if wait is not None:
                self.on_read(reader.held_bytes)
                return wait
        self._stop_reading()
        self._loop.call_soon(self._handle_arrived)
        return None

    async def _continue_after(self, wait: Wait) -> None:
        try:
            await wait
        except BaseException:
            self._end()
            self._rest()
            raise
        self._handle_arrived()

    def _rest(self) -> None:
        """Wait for more bytes, or tell that the WebSocket has ended: no message is being handled."""
        self._busy = False
        transport = self._transport
        if self._state is _State.ENDED:
            self.on_end()
        elif transport is None:
            self._end()
        elif not self._reading:
            self._reading = True
            if not transport.is_closing():
                transport.resume_reading()

    def _stop_reading(self) -> None:
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _handle_control(self, opcode: int, data: bytes) -> None:
        if opcode == CLOSE:
            if data:
                (self.close_code,) = _unpack_code(data)
                self.close_reason = data[2:].decode()
            if self._state is _State.OPEN:
                self._write_control(CLOSE, data[:2])  # the same code (RFC 6455 section 5.5.1)
            self._end()
        elif opcode == PING and self._state is _State.OPEN:
            # One pong for all pings of a peer that does not read them (RFC 6455 section 5.5.3).
            if self._writing_paused:
                self._pending_pong = data
            else:
                self._write_control(PONG, data)

    # The end.

    def _fail(self, error: FrameError) -> None:
        self.fault = error
        if self._state is _State.OPEN:
            self._write_control(CLOSE, _make_close(error.code, error.reason))
        self._end()
        self._rest()

    def _end(self) -> None:
        """End the WebSocket, and the connection when the peer has read everything."""
        if self._state is _State.ENDED:
            return
        self._state = _State.ENDED
        self._stop_timer()
        self._linger()
        if not self._busy:
            self.on_end()

    def _linger(self) -> None:
        """Send FIN and close when the peer has closed.

        close() on a socket with unread data resets the connection, and the peer may not see the close frame.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not self._reading:
            self._reading = True
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS: a close_notify has the same effect
        self._timer = self._loop.call_later(self.LINGER_TIMEOUT_S, transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Writes.

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _write_control(self, opcode: int, data: bytes) -> None:
        """Write a control frame behind the messages that wait."""
        self._write_rest()
        self._write(self._writer.frame(opcode, data))

    def _on_turn_over(self) -> None:
        self._write_rest()
        self._unwritten = None

    def _write_rest(self) -> None:
        if self._unwritten:
            data = b"".join(self._unwritten)
            self._unwritten.clear()
            self._unwritten_bytes = 0
            self._write(data)

    async def _wait_until_taken(self) -> None:
        if self._writing_paused and self._transport is not None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    def _release_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


def _make_close(code: int | None, reason: str) -> bytes:
    """Return the payload of a close frame."""
    if code is None or code in UNSENDABLE_CODES:
        if not reason:
            return b""
        code = _NORMAL_CLOSURE  # a reason needs a code
    return _pack_code(code) + cut_close_reason(reason).encode()
