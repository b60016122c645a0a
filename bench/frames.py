"""WebSocket frames (RFC 6455 section 5): the subset that the mock provider and the load generator use."""

from __future__ import annotations

import base64
import hashlib
import re
import struct

CLOSE, PING, PONG = 8, 9, 10

_TEXT = 1
_FINAL = 0x80
_MASKED = 0x80

_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]+)", re.IGNORECASE)

#: The server appends it to the client's key (RFC 6455 section 1.3).
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def make_handshake_response(request: bytes) -> bytes:
    """Return the 101 response to an upgrade request."""
    key = _KEY.search(request)
    assert key is not None, "an upgrade request without Sec-WebSocket-Key"
    accept = base64.b64encode(hashlib.sha1(key[1].strip() + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def make_text_frame(payload: bytes, *, masked: bool = False) -> bytes:
    """Return a text message in one frame.

    Clients must mask their frames; the mask is zero, so the payload stays readable.
    """
    return _make_frame(_TEXT, payload, masked=masked)


def make_control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """Return a server's CLOSE, PING or PONG frame."""
    return _make_frame(opcode, payload, masked=False)


def _make_frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    flag, size = _MASKED if masked else 0, len(payload)
    if size < 126:
        length = bytes((flag | size,))
    elif size < 65536:
        length = bytes((flag | 126,)) + struct.pack("!H", size)
    else:
        length = bytes((flag | 127,)) + struct.pack("!Q", size)
    return bytes((_FINAL | opcode,)) + length + (bytes(4) if masked else b"") + payload


def read_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return the opcode and unmasked payload of the first frame, and the bytes after it; None if it is incomplete."""
    if len(data) < 2:
        return None
    size, at = data[1] & 127, 2
    # 126 and 127 announce a length of 2 or 8 bytes (RFC 6455 section 5.2).
    if size >= 126:
        width, form = (2, "!H") if size == 126 else (8, "!Q")
        if len(data) < at + width:
            return None
        size, at = struct.unpack_from(form, data, at)[0], at + width
    mask = b""
    if data[1] & _MASKED:
        mask, at = data[at : at + 4], at + 4
    if len(data) < at + size:
        return None
    return data[0] & 15, _unmask(data[at : at + size], mask), data[at + size :]


def _unmask(payload: bytes, mask: bytes) -> bytes:
    if not mask or not payload:
        return payload
    # One XOR of large integers is much faster than a loop over bytes.
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
