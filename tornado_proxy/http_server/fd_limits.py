"""Connections are taken while there are file descriptors for them; when these run out, new ones wait in the kernel.

Tornado's own way of accepting fails at each look at a socket whose connections it cannot take, and looks again at once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import weakref
from collections.abc import Callable, Iterable

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

_log = logging.getLogger(__name__)

#: Seconds until a socket is looked at again that had connections which could not be taken.
_PAUSE_S = 0.1

#: Connections that are taken in one turn of the loop; Tornado's own number.
_AT_ONCE = 128

#: Descriptors left to the ledger, the admin port and calls whose client has left, beside what was open at the start.
_SPARE = 16

#: What accept() and dup() say when the process, or the machine, has no descriptor left or no memory for one.
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_fd_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows: a stream takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS names a hard limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class FdLimitedServer(HTTPServer):
    """An HTTP server that waits while there are too few descriptors.

    A connection is taken when there is room for it and for `extra_fds_per_connection` more, and as many
    for each that is open: a caller is not helped without a connection to a provider.
    """

    extra_fds_per_connection = 0

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on `sockets`."""
        room = FdBudget(1 + self.extra_fds_per_connection)
        for one in sockets:
            self._sockets[one.fileno()] = one
            self._handlers[one.fileno()] = Acceptor(one, self._handle_connection, room).open()


class FdBudget:
    """How many connections there are descriptors for.  Make it when all else that takes one has been opened."""

    def __init__(self, for_each: int) -> None:
        self._for_each = for_each
        self._before = _lowest_free()
        #: Their sockets; one that is closed is freed at once, whoever had it last.
        self._taken: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def check(self) -> None:
        """Raise EMFILE when the next connection would take what others need."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        wanted = self._before + _SPARE + self._for_each * (len(self._taken) + 1)
        if max(wanted, _lowest_free() + self._for_each) > limit:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def take(self, connection: socket.socket) -> None:
        """It has been taken."""
        self._taken.add(connection)


def _lowest_free() -> int:
    """The descriptor that is opened next: all below are in use.  Raises OSError when there is none."""
    lowest = os.dup(0)
    os.close(lowest)
    return lowest


class Acceptor:
    """A listening socket that is looked at, or is not for a while."""

    def __init__(self, listening: socket.socket, take: Callable[[socket.socket, object], None], room: FdBudget) -> None:
        self._listening = listening
        self._take = take
        self._room = room
        self._loop = IOLoop.current()
        self._again: object | None = None
        self._short = False

    def open(self) -> Callable[[], None]:
        """Look at the socket; gives what ends that."""
        self._again = None
        self._loop.add_handler(self._listening, self._ready, IOLoop.READ)
        return self._close

    def _look_again(self) -> None:
        self.open()
        self._ready(self._listening, IOLoop.READ)  # there may be none left: then nothing else would say so

    def _close(self) -> None:
        if self._again is None:
            self._loop.remove_handler(self._listening)
        else:
            self._loop.remove_timeout(self._again)

    def _ready(self, listening: object, events: int) -> None:
        try:
            for _ in range(_AT_ONCE):
                self._room.check()
                connection, address = self._listening.accept()
                self._room.take(connection)
                self._take(connection, address)
        except BlockingIOError:
            pass  # that were all
        except ConnectionAbortedError:
            return  # that one had left; the others are seen in the next turn
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._wait(error)
            return
        if self._short:
            self._short = False
            _log.warning("new connections are taken again")

    def _wait(self, error: OSError) -> None:
        self._loop.remove_handler(self._listening)
        self._again = self._loop.call_later(_PAUSE_S, self._look_again)
        if not self._short:
            self._short = True
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            _log.error(
                "new connections wait: too few file descriptors",
                extra={"reason": error.strerror, "open_files_limit": limit},
            )
