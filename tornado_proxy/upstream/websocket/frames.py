"""WebSocket frames (RFC 6455 section 5): bytes to messages, messages to bytes.  No extensions.

The bytes of one read usually hold many frames.  They are parsed where they are, without a read or a copy for each.
Masks and UTF-8 are the work of C functions.
"""

from __future__ import annotations

import os
import struct

from tornado.util import _websocket_mask

#: Opcodes (RFC 6455 section 5.2).
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: Close codes (RFC 6455 section 7.4.1).
PROTOCOL_ERROR, INVALID_PAYLOAD, MESSAGE_TOO_BIG = 1002, 1007, 1009

_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

#: Parts of the first byte: the last frame of its message, extensions, the opcode and its bit of control frames.
_FIN, _RESERVED, _OPCODE, _CONTROL = 0x80, 0x70, 0x0F, 0x08

#: The first bytes of messages in one frame.
_WHOLE = frozenset({_FIN | TEXT, _FIN | BINARY})

#: Parts of the second byte: whether the payload is masked, and its length.
_MASKED, _LENGTH = 0x80, 0x7F

#: The largest length in the second byte; two larger values announce a length of 2 or 8 bytes.
_MAX_SHORT_LENGTH = 125
_LENGTH_OF_2_BYTES, _LENGTH_OF_8_BYTES = 126, 127

_unpack_2_bytes = struct.Struct("!H").unpack_from
_unpack_8_bytes = struct.Struct("!Q").unpack_from
_pack_2_bytes = struct.Struct("!BBH").pack
_pack_8_bytes = struct.Struct("!BBQ").pack

#: Random bytes that are fetched at a time: the system call costs as much as the rest of a frame.
_RANDOM_BYTES = 256
_MASK_BYTES = 4


class FrameError(Exception):
    """Bytes that break the protocol or a limit; the connection must be closed with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameReader:
    """Turns the bytes of a connection into messages: feed() bytes, then take() until it returns None.

    Args:
        masked: True for the frames of a client, which must be masked; those of a server must not be (section 5.1).
        max_message_bytes: Limit of a message.
    """

    __slots__ = (
        "_at", "_buffer", "_fragments", "_mask_bytes", "_masked", "_max_bytes", "_needed", "_opcode", "_partial",
    )  # fmt: skip

    def __init__(self, *, masked: bool, max_message_bytes: int) -> None:
        self._masked = masked
        self._mask_bytes = _MASK_BYTES if masked else 0
        self._max_bytes = max_message_bytes
        #: Bytes that are being parsed, and where the next frame begins.
        self._buffer = b""
        self._at = 0
        #: An incomplete frame, and the bytes that it must have before it is worth another attempt.
        self._partial = bytearray()
        self._needed = 0
        #: The payloads and the opcode of a message whose last frame has not arrived.
        self._fragments: bytearray | None = None
        self._opcode = CONTINUATION

    @property
    def held_bytes(self) -> int:
        """Bytes of messages that are incomplete."""
        return len(self._partial) + (0 if self._fragments is None else len(self._fragments))

    def feed(self, data: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        if self._at < len(self._buffer):  # frames of the previous ones have not been taken
            data = self._buffer[self._at :] + data
        elif self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial = bytearray()
        self._buffer, self._at = data, 0

    def take(self) -> tuple[int, str | bytes] | None:
        """Return the opcode and the payload of the next message or control frame; None if more bytes are needed.

        The payload of a text message is str, all others are bytes.  CONTINUATION, without a payload, is returned for
        each part of a message that is not the last one: a read can hold 40,000 empty parts.

        Raises:
            FrameError: the bytes break the protocol, or the message is larger than the limit.
        """
        frame = self._take_frame()
        if frame is None:
            return None
        first, payload = frame
        if self._fragments is not None or first not in _WHOLE:
            opcode, payload = self._join(first, payload)
        else:
            opcode = first & _OPCODE
        if opcode == CLOSE:
            _check_close(payload)
        return opcode, _decode(payload) if opcode == TEXT else payload

    def _take_frame(self) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame; None if it is incomplete."""
        buffer, at = self._buffer, self._at
        available = len(buffer) - at
        if available < 2:
            self._keep(2)
            return None
        first, second = buffer[at], buffer[at + 1]
        length, head = second & _LENGTH, 2
        if length > _MAX_SHORT_LENGTH:
            head, unpack = (4, _unpack_2_bytes) if length == _LENGTH_OF_2_BYTES else (10, _unpack_8_bytes)
            if available < head:
                self._keep(head)
                return None
            (length,) = unpack(buffer, at + 2)
        # The usual frame passes these comparisons; the checks of all others cost more.
        if first not in _WHOLE or length > self._max_bytes or (second >= _MASKED) is not self._masked:
            self._check(first, second, length)
        start = at + head + self._mask_bytes
        if available < start - at + length:
            self._keep(start - at + length)
            return None
        end = self._at = start + length
        payload = buffer[start:end]
        return first, _websocket_mask(buffer[start - 4 : start], payload) if self._masked else payload

    def _keep(self, needed: int) -> None:
        """Keep the bytes that are left until there are `needed` of them."""
        if self._buffer:
            self._partial = bytearray(memoryview(self._buffer)[self._at :])
            self._needed = needed
            self._buffer, self._at = b"", 0

    def _check(self, first: int, second: int, length: int) -> None:
        """Raise FrameError if the first bytes of a frame are not valid."""
        if (second >= _MASKED) is not self._masked:
            raise FrameError(PROTOCOL_ERROR, "client frames must be masked" if self._masked else "masked server frame")
        if first & _RESERVED:
            raise FrameError(PROTOCOL_ERROR, "a frame of an extension that was not agreed to")
        if first & _OPCODE not in _OPCODES:
            raise FrameError(PROTOCOL_ERROR, "a frame with an unknown opcode")
        if first & _CONTROL:
            if not first & _FIN or length > _MAX_SHORT_LENGTH:
                raise FrameError(PROTOCOL_ERROR, "a control frame that is long or in parts")
        elif length + (0 if self._fragments is None else len(self._fragments)) > self._max_bytes:
            raise FrameError(MESSAGE_TOO_BIG, "message too big")

    def _join(self, first: int, payload: bytes) -> tuple[int, bytes]:
        """Add a part of a message; return the opcode and payload of the message if it was the last part.

        If not, return CONTINUATION and nothing.

        Control frames may come between the parts, and are returned as they are.
        """
        opcode = first & _OPCODE
        if opcode & _CONTROL:
            return opcode, payload
        if (opcode == CONTINUATION) is (self._fragments is None):
            raise FrameError(PROTOCOL_ERROR, "frames of a message out of order")
        if self._fragments is None:
            self._fragments, self._opcode = bytearray(payload), opcode
        else:
            self._fragments += payload
        if not first & _FIN:
            return CONTINUATION, b""
        message, self._fragments = bytes(self._fragments), None
        return self._opcode, message


class FrameWriter:
    """Turns messages into frames.

    Args:
        masked: True for the frames of a client.
    """

    __slots__ = ("_masked",)

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked

    def frame(self, opcode: int, payload: bytes) -> bytes:
        """Return a frame that is a whole message, or a control frame."""
        if not self._masked:
            return _make_head(opcode, len(payload), 0) + payload
        mask = _draw_mask()
        return b"".join((_make_head(opcode, len(payload), _MASKED), mask, _websocket_mask(mask, payload)))


#: Masks that have been drawn and not been used, for all connections.
_masks: list[bytes] = []


def _draw_mask() -> bytes:
    """Return a mask that no other frame has (section 5.3: it must be unpredictable)."""
    if not _masks:
        drawn = os.urandom(_RANDOM_BYTES)
        _masks.extend(drawn[at : at + _MASK_BYTES] for at in range(0, _RANDOM_BYTES, _MASK_BYTES))
    return _masks.pop()


def _make_head(opcode: int, length: int, masked: int) -> bytes:
    if length <= _MAX_SHORT_LENGTH:
        return bytes((_FIN | opcode, masked | length))
    if length <= 0xFFFF:
        return _pack_2_bytes(_FIN | opcode, masked | _LENGTH_OF_2_BYTES, length)
    return _pack_8_bytes(_FIN | opcode, masked | _LENGTH_OF_8_BYTES, length)


def _check_close(payload: bytes) -> None:
    """Raise FrameError if the payload of a close frame is not empty, a code, or a code and a reason."""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame with half of a code")
    _decode(payload[2:])


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(INVALID_PAYLOAD, "text that is not valid UTF-8") from error
