"""The end of a connection that is closed after its answer, so that the client gets all of it (RFC 9112 section 9.6).

A socket that is closed with unread bytes in it, or that gets more after it was closed, resets the connection: whatever
of the answer is still on its way is lost.  So its sending side is closed alone, and what comes is dropped until the
client closes, too.
"""

from __future__ import annotations

import contextlib
import socket

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

#: Seconds that a client has to read the rest of its answer and to close.
_LINGER_S = 60.0

#: Bytes that are dropped in one go, and how often in one turn of the loop.
_DROP_BYTES = 64 * 1024
_MOST_AT_ONCE = 16


def hold(stream: IOStream) -> socket.socket | None:
    """The connection of `stream`, which stays open until this is closed, too; None where it has closed already."""
    if stream.closed():
        return None
    with contextlib.suppress(OSError):  # there is no descriptor left
        return stream.socket.dup()
    return None


def linger(held: socket.socket) -> None:
    """Close a held connection when the client has read what was written to it."""
    try:
        held.settimeout(0)
        held.shutdown(socket.SHUT_WR)
    except OSError:
        held.close()
    else:
        _Lingering(held)


class _Lingering:
    """A connection on which nothing is sent any more.  It is kept by the loop alone."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held
        self._loop = IOLoop.current()
        self._loop.add_handler(held, self._drop, IOLoop.READ)
        self._limit = self._loop.call_later(_LINGER_S, self._close)

    def _drop(self, held: object, events: int) -> None:
        try:
            for _ in range(_MOST_AT_ONCE):
                if not self._held.recv(_DROP_BYTES):
                    break
            else:
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # it was reset by the client
        self._close()

    def _close(self) -> None:
        self._loop.remove_timeout(self._limit)
        self._loop.remove_handler(self._held)
        self._held.close()
