"""Accept connections only while file descriptors are left to serve them; new ones wait in the kernel's queue.

Tornado's add_accept_handler lets EMFILE escape to the event loop, which logs it and calls the handler again at once,
because the listening socket stays readable: a busy loop with a log line per turn.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import weakref
from collections.abc import Callable

from tornado.ioloop import IOLoop

_log = logging.getLogger(__name__)

#: Seconds until the next attempt to accept after an attempt has failed for lack of descriptors.
_RETRY_DELAY_S = 0.1

#: Connections accepted in one turn of the loop, so that open ones get their turn.  Same as Tornado's default backlog.
_MAX_ACCEPTS_PER_TURN = 128

#: Descriptors that stay free beyond those open at the start: for the ledger's files, the admin port, and requests that
#: are still drained after their client has left.
_RESERVED_FDS = 16

#: The errors of accept() and dup() when the process or the machine has no descriptor left, or no memory for one.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_fd_limit() -> None:
    """Raise this process's soft limit of open files to its hard limit.  A stream needs two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS reports a hard limit (RLIM_INFINITY) that it refuses to set
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class FdBudget:
    """Counts the file descriptors that accepted connections may need.

    Create it after everything else that the process keeps open has been opened.
    """

    def __init__(self, fds_per_connection: int) -> None:
        self._fds_per_connection = fds_per_connection
        self._open_at_start = _find_lowest_free_fd()
        #: Sockets of accepted connections.  Weak, because a socket is closed in several places: its transport drops it
        #: then, and it leaves the set at once.
        self._accepted: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def check(self) -> None:
        """Raise OSError (EMFILE) if one more connection would use descriptors that are reserved."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reserved = self._open_at_start + _RESERVED_FDS + self._fds_per_connection * (len(self._accepted) + 1)
        if max(reserved, _find_lowest_free_fd() + self._fds_per_connection) > limit:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def add(self, connection: socket.socket) -> None:
        """Count an accepted connection until its socket is closed."""
        self._accepted.add(connection)


def _find_lowest_free_fd() -> int:
    """Return the descriptor that the next open() gets; all lower ones are in use.  Raise OSError if none is free."""
    lowest = os.dup(0)
    os.close(lowest)
    return lowest


class Acceptor:
    """Accepts the connections of one listening socket, with pauses while the budget is exhausted.

    listening ── no descriptor, and close_idle() closes nothing ──> paused for _RETRY_DELAY_S
        ^                                                                │
        └────────────────────────────────────────────────────────────────┘
    """

    def __init__(
        self,
        listening: socket.socket,
        on_connection: Callable[[socket.socket, object], None],
        budget: FdBudget,
        close_idle: Callable[[], bool],
    ) -> None:
        self._listening = listening
        self._on_connection = on_connection
        self._budget = budget
        self._close_idle = close_idle
        self._loop = IOLoop.current()
        self._retry_timer: object | None = None
        self._exhausted = False

    def start(self) -> Callable[[], None]:
        """Start accepting; return the function that stops it."""
        self._retry_timer = None
        self._loop.add_handler(self._listening, self._on_readable, IOLoop.READ)
        return self._stop

    def _resume(self) -> None:
        self.start()
        # Try at once: if all waiting clients have left, no event would come to report that the shortage is over.
        self._on_readable(self._listening, IOLoop.READ)

    def _stop(self) -> None:
        if self._retry_timer is None:
            self._loop.remove_handler(self._listening)
        else:
            self._loop.remove_timeout(self._retry_timer)

    def _on_readable(self, listening: object, events: int) -> None:
        try:
            for _ in range(_MAX_ACCEPTS_PER_TURN):
                if not self._has_room():
                    return  # the listening socket stays readable
                connection, address = self._listening.accept()
                self._budget.add(connection)
                self._on_connection(connection, address)
        except BlockingIOError:
            pass  # the queue is empty
        except ConnectionAbortedError:
            return  # this client left while it was queued; the others are accepted on the next turn
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)
            return
        if self._exhausted:
            self._exhausted = False
            _log.warning("accepting new connections again")

    def _has_room(self) -> bool:
        """Return True if the budget allows one more connection.

        If not, close an idle connection: a client with a request goes first.  Its descriptor is free in a later turn.
        """
        try:
            self._budget.check()
        except OSError:
            if not self._close_idle():
                raise
            return False
        return True

    def _pause(self, error: OSError) -> None:
        self._loop.remove_handler(self._listening)
        self._retry_timer = self._loop.call_later(_RETRY_DELAY_S, self._resume)
        # One line per shortage, not one per attempt.
        if not self._exhausted:
            self._exhausted = True
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            _log.error(
                "new connections wait: too few file descriptors",
                extra={"reason": error.strerror, "open_files_limit": limit},
            )
