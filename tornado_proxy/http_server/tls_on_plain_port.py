"""Refuses TLS on the plain port at its first byte: a ClientHello never ends a request head, so it would wait.

The usual cause is a client that is given https:// or wss:// for a proxy without a TLS terminator.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from tornado.iostream import IOStream

from tornado_proxy.http_server.lingering_close import close_lingering, duplicate_socket

_log = logging.getLogger(__name__)

#: The type of a TLS record that carries a handshake (RFC 8446 section 5.1).  No HTTP method begins with it.
_TLS_HANDSHAKE = 0x16

#: Not TLS, so a TLS library reports a wrong version and drops it; curl, openssl s_client and packet captures show it.
_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks plain HTTP, and the client sent TLS; use http:// or ws://, or put a TLS terminator in front\n"
)


def watch_first_byte(stream: IOStream, address: Any) -> None:
    """Close `stream` if its first byte is that of a TLS handshake.  `address` is the client's, for the log."""

    def read_first(buffer: bytearray | memoryview) -> int | None:
        count = IOStream.read_from_fd(stream, buffer)
        if count:
            # Later reads go to the class's method: only the first one pays for this check.
            del stream.read_from_fd
            if buffer[0] == _TLS_HANDSHAKE:
                stream.io_loop.add_callback(_refuse, stream, address)
        return count

    stream.read_from_fd = read_first  # type: ignore[method-assign, assignment]  # replaced on this stream alone


def _refuse(stream: IOStream, address: Any) -> None:
    duplicate = duplicate_socket(stream)
    if duplicate is None:
        return
    _log.warning("TLS on the plain port: connection closed", extra={"client": str(address[0]) if address else None})
    with contextlib.suppress(OSError):
        duplicate.send(_RESPONSE)
    stream.close()
    close_lingering(duplicate)
