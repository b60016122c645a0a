"""Watches libcurl's sockets on the event loop.

    the epoll set is readable ──> EpollSockets ──> on_ready(socket, its events) for each ready socket

libcurl adds and removes its sockets in each transfer.  On asyncio's own loops every change creates or drops a watcher.
In an epoll set of our own it is one system call, and a kept connection stays in the set (docs/performance.md has the
figures).  LoopSockets is for systems without epoll.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable

import pycurl

#: Called with a socket and libcurl's name of its events (CURL_CSELECT_...).
OnReady = Callable[[int, int], None]

#: Ready sockets that one turn of the loop serves, so that timers and other sockets are not delayed behind thousands.
_MAX_EVENTS_PER_TURN = 256


class EpollSockets:
    """Sockets in an epoll set.

    Args:
        loop: The event loop that watches the set.
        on_ready: Called for each ready socket, from the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ready: OnReady) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._set = select.epoll()
        #: The events that libcurl waits for, by socket.
        self._wanted: dict[int, int] = {}
        #: The events of epoll by libcurl's name of them (CURL_POLL_...), and libcurl's name of what has occurred.
        self._events = {
            pycurl.POLL_IN: select.EPOLLIN,
            pycurl.POLL_OUT: select.EPOLLOUT,
            pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
        }
        self._actions = {
            select.EPOLLIN: pycurl.CSELECT_IN,
            select.EPOLLOUT: pycurl.CSELECT_OUT,
            select.EPOLLIN | select.EPOLLOUT: pycurl.CSELECT_IN | pycurl.CSELECT_OUT,
        }
        loop.add_reader(self._set.fileno(), self._serve_ready)

    def on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl to change the events that a socket is watched for."""
        events = self._events.get(event, 0)
        if not events:
            # A kept connection stays in the set until its next request: it has no event unless the provider closes it.
            if self._wanted.pop(fd, 0) & select.EPOLLOUT:
                self._unregister(fd)
            return
        self._wanted[fd] = events
        try:
            self._set.modify(fd, events)
        except FileNotFoundError:  # not in the set, or libcurl closed it and this is another one with its number
            self._set.register(fd, events)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._set.fileno())
        self._wanted.clear()
        self._set.close()

    def _serve_ready(self) -> None:
        for fd, ready in self._set.poll(0, _MAX_EVENTS_PER_TURN):
            wanted = self._wanted.get(fd)
            if wanted is None:  # removed, in this turn or before
                self._unregister(fd)
            else:
                # After an error or the end of a connection (EPOLLERR, EPOLLHUP) the next read or write reports it.
                self._on_ready(fd, self._actions[ready & wanted or wanted])

    def _unregister(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # closed, so that the kernel has removed it
            self._set.unregister(fd)


class LoopSockets:
    """Sockets that the event loop itself watches; the arguments are those of EpollSockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_ready: OnReady) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._watched: set[int] = set()

    def on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        """Called by libcurl to change the events that a socket is watched for."""
        self._remove(fd)
        if event in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            self._watched.add(fd)
            self._loop.add_reader(fd, self._on_ready, fd, pycurl.CSELECT_IN)
        if event in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._watched.add(fd)
            self._loop.add_writer(fd, self._on_ready, fd, pycurl.CSELECT_OUT)

    def close(self) -> None:
        """Stop watching."""
        for fd in list(self._watched):
            self._remove(fd)

    def _remove(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.discard(fd)
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)


SocketSet = EpollSockets if hasattr(select, "epoll") else LoopSockets
