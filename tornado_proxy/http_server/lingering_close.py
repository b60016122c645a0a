"""Close a connection after its last response without losing the end of that response (RFC 9112 section 9.6).

close() on a socket with unread data, or data that arrives after close(), makes the kernel reset the connection, and a
reset discards the response bytes that the client has not read.  So the sending side is shut down first, and received
bytes are dropped until the client closes its side.  nginx calls this a lingering close.
"""

from __future__ import annotations

import contextlib
import socket

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

#: Seconds that a client has to read the rest of the response and close.
_LINGER_TIMEOUT_S = 60.0

#: Bytes dropped by one recv().
_DROP_BYTES = 64 * 1024

#: Calls of recv() in one turn of the loop, so that a client that keeps sending does not block the others.
_MAX_READS_PER_TURN = 16


def duplicate_socket(stream: IOStream) -> socket.socket | None:
    """Return a duplicate of the stream's socket; the connection stays open until both are closed.

    Return None if the stream is closed or no file descriptor is free.
    """
    if stream.closed():
        return None
    with contextlib.suppress(OSError):  # without a descriptor the close is abrupt, as without this module
        return stream.socket.dup()
    return None


def close_lingering(connection: socket.socket) -> None:
    """Send FIN on `connection`, and close it when the client has closed its side or after _LINGER_TIMEOUT_S."""
    try:
        connection.settimeout(0)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        connection.close()
    else:
        _LingeringClose(connection)


class _LingeringClose:
    """Drops received bytes until the client closes.  Only the event loop holds a reference to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = IOLoop.current()
        self._loop.add_handler(connection, self._drop, IOLoop.READ)
        self._timer = self._loop.call_later(_LINGER_TIMEOUT_S, self._close)

    def _drop(self, connection: object, events: int) -> None:
        try:
            for _ in range(_MAX_READS_PER_TURN):
                if not self._connection.recv(_DROP_BYTES):
                    break
            else:
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # the client has reset the connection
        self._close()

    def _close(self) -> None:
        self._loop.remove_timeout(self._timer)
        self._loop.remove_handler(self._connection)
        self._connection.close()
