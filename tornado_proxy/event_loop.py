"""The event loop of a server: uvloop, with Tornado's sockets in one epoll set of their own.

    uvloop ── the epoll set is readable ──> EpollIOLoop ──> handler of each ready socket

Tornado changes the events it waits for several times in a request, and libcurl adds and removes its sockets in each
transfer.  On asyncio's own loops every change creates or drops a watcher.  Here it is one system call, or none if the
kernel watches for more events than are wanted at the moment (docs/performance.md has the figures).
"""

from __future__ import annotations

import asyncio
import gc
import select
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from tornado.ioloop import IOLoop, _Selectable
from tornado.platform.asyncio import AsyncIOMainLoop

#: New objects after which the youngest ones are searched for cycles.  Requests leave none, and
#: 32 requests whose records wait for a commit hold several times as many as Python's own threshold, 700.
_COLLECTION_THRESHOLD = 10_000

#: Ready sockets that one turn serves, so that timers and uvloop's own sockets are not delayed behind thousands of them.
_MAX_EVENTS_PER_TURN = 256


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on the event loop of a server until it returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(main))


def freeze_startup_objects() -> None:
    """Exclude all objects that exist now from garbage collection, and collect later ones less often.

    Call this once, after start: modules, schemas and prices live as long as the process, and traversing them makes
    each full collection slower.
    """
    # Collect first: a frozen cycle is never freed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTION_THRESHOLD)


async def _run(main: Coroutine[Any, Any, None]) -> None:
    install()
    await main


def install() -> None:
    """Make an EpollIOLoop the current IOLoop, unless the system has no epoll or an IOLoop exists already."""
    if hasattr(select, "epoll") and IOLoop.current(instance=False) is None:
        EpollIOLoop()


class EpollIOLoop(AsyncIOMainLoop):
    """An IOLoop on the running asyncio loop that watches its sockets with epoll.

    The values of IOLoop.READ, WRITE and ERROR are those of EPOLLIN, EPOLLOUT and EPOLLERR | EPOLLHUP, so that events
    need no translation.
    """

    def initialize(self, **kwargs: Any) -> None:  # type: ignore[override]  # as Tornado itself overrides its base
        """Set up the epoll set; called by Tornado's constructor."""
        super().initialize(**kwargs)
        self._set = select.epoll()
        #: Events that Tornado waits for, by file descriptor.
        self._wanted: dict[int, int] = {}
        #: Events that the kernel watches for, by file descriptor; a superset of the wanted events.  A descriptor
        #: without a handler can stay in it until it is used again, has an event, or is closed.
        self._watched: dict[int, int] = {}
        self.asyncio_loop.add_reader(self._set.fileno(), self._serve_ready)

    def add_handler(self, fd: int | _Selectable, handler: Callable[..., None], events: int) -> None:
        """Call `handler(fd, events)` when the socket is ready for any of `events`.

        Raises:
            ValueError: the socket has a handler already.
        """
        number, file = (fd, fd) if isinstance(fd, int) else self.split_fd(fd)
        if number in self.handlers or number not in self._watched or not self._watch_again(number, events):
            try:
                self._set.register(number, events)
            except FileExistsError:
                raise ValueError(f"fd {number} added twice") from None
        self.handlers[number] = (file, handler)
        self._wanted[number] = self._watched[number] = events

    def update_handler(self, fd: int | _Selectable, events: int) -> None:
        """Change the events that the handler waits for.

        Fewer events than before cost no system call: Tornado mostly wants the others back within the same request.
        """
        number, _ = self.split_fd(fd)
        self._wanted[number] = events
        watched = self._watched.get(number)
        if watched is None:  # _unwatch() removed it from the set, which the handler does not see
            self._set.register(number, events)
        elif events & ~watched:
            self._set.modify(number, events)
        else:
            return
        self._watched[number] = events

    def remove_handler(self, fd: int | _Selectable) -> None:
        """Remove the handler of the socket.

        The socket may be closed already; the kernel then removed it from the epoll set.
        """
        number = fd if isinstance(fd, int) else self.split_fd(fd)[0]
        if self.handlers.pop(number, None) is None:
            return
        del self._wanted[number]
        # libcurl removes the socket of a kept connection after each response, and adds it for the next request.  While
        # it only waits for bytes, it stays in the set: it has no event unless the provider closes it.
        if self._watched.get(number) != IOLoop.READ:
            self._unwatch(number)

    def close(self, all_fds: bool = False) -> None:  # noqa: FBT001, FBT002  # Tornado's signature
        """Close the asyncio loop and the epoll set."""
        self.asyncio_loop.remove_reader(self._set.fileno())
        super().close(all_fds)
        self._set.close()

    def _serve_ready(self) -> None:
        for number, ready in self._set.poll(0, _MAX_EVENTS_PER_TURN):
            entry = self.handlers.get(number)
            if entry is None:  # removed, by the handler of an earlier socket in this turn or before
                self._unwatch(number)
                continue
            wanted = self._wanted[number]
            # The next read or write raises the error, as on asyncio's own loops.
            events = wanted & (IOLoop.READ | IOLoop.WRITE) if ready & IOLoop.ERROR else ready & wanted
            if ready & ~wanted & ~IOLoop.ERROR or not events:
                self._watch_less(number, wanted)
            if events:
                self._call(entry[1], entry[0], events)

    def _watch_less(self, number: int, wanted: int) -> None:
        if wanted & ~IOLoop.ERROR:
            self._set.modify(number, wanted)
            self._watched[number] = wanted
        else:
            self._unwatch(number)  # epoll reports errors as long as the socket is in the set (epoll_ctl(2), EPOLLERR)

    def _watch_again(self, number: int, events: int) -> bool:
        """Watch a socket that has been removed; return False if it was closed, and `number` is another file now."""
        try:
            self._set.modify(number, events)
        except FileNotFoundError:
            return False
        return True

    def _unwatch(self, number: int) -> None:
        if self._watched.pop(number, None) is not None:
            try:
                self._set.unregister(number)
            except OSError:
                return  # the socket was closed, so the kernel has removed it

    def _call(self, handler: Callable[..., None], file: int | _Selectable, events: int) -> None:
        try:
            handler(file, events)
        except Exception as error:  # noqa: BLE001  # one socket's error must not stop the others of this turn
            self.asyncio_loop.call_exception_handler(
                {"message": f"Exception in the handler of {file}", "exception": error}
            )
