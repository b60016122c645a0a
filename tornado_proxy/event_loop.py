"""The event loop of a server: uvloop, and on it Tornado's IOLoop with the sockets in an epoll set of its own.

    uvloop ── the set is readable ──> EpollIOLoop ──> handler of each ready socket

Tornado changes what it waits for several times in a request, and libcurl puts its sockets in and out for each.  On
asyncio's loops every such change makes and drops a watcher; here it is one system call, or none where the kernel looks
for more than is wanted at the moment.  docs/performance.md has the figures.
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

#: Ready sockets that are served before the asyncio loop has its turn.
_MOST_AT_ONCE = 256


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end on the event loop of a server."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(main))


def freeze_startup_objects() -> None:
    """Say that a server has started: what is in memory now stays, and the collector need not look at it again."""
    gc.collect()
    gc.freeze()


async def _run(main: Coroutine[Any, Any, None]) -> None:
    install()
    await main


def install() -> None:
    """Make Tornado use an EpollIOLoop on the running loop, where the system has epoll and no IOLoop is there yet."""
    if hasattr(select, "epoll") and IOLoop.current(instance=False) is None:
        EpollIOLoop()


class EpollIOLoop(AsyncIOMainLoop):
    """An IOLoop for the running asyncio loop.  IOLoop's READ, WRITE and ERROR are epoll's own bits."""

    def initialize(self, **kwargs: Any) -> None:  # type: ignore[override]  # as Tornado itself overrides its base
        """Called by Tornado's constructor."""
        super().initialize(**kwargs)
        self._set = select.epoll()
        self._wanted: dict[int, int] = {}
        #: What the kernel looks for; at least what is wanted.
        self._watched: dict[int, int] = {}
        self.asyncio_loop.add_reader(self._set.fileno(), self._serve_ready)

    def add_handler(self, fd: int | _Selectable, handler: Callable[..., None], events: int) -> None:
        """Call `handler(fd, events)` when the socket is ready for any of `events`.

        Raises:
            ValueError: it has a handler already.
        """
        number, file = self.split_fd(fd)
        try:
            self._set.register(number, events)
        except FileExistsError:
            raise ValueError(f"fd {number} added twice") from None
        self.handlers[number] = (file, handler)
        self._wanted[number] = self._watched[number] = events

    def update_handler(self, fd: int | _Selectable, events: int) -> None:
        """Change what is waited for.  Less than before is only noted: mostly the rest is wanted again soon."""
        number, _ = self.split_fd(fd)
        self._wanted[number] = events
        watched = self._watched.get(number)
        if watched is None:
            self._set.register(number, events)
        elif events & ~watched:
            self._set.modify(number, events)
        else:
            return
        self._watched[number] = events

    def remove_handler(self, fd: int | _Selectable) -> None:
        """Forget the socket.  It may have been closed already: the kernel has then forgotten it first."""
        number, _ = self.split_fd(fd)
        if self.handlers.pop(number, None) is None:
            return
        del self._wanted[number]
        self._unwatch(number)

    def close(self, all_fds: bool = False) -> None:  # noqa: FBT001, FBT002  # Tornado's signature
        """Close the set and the asyncio loop."""
        self.asyncio_loop.remove_reader(self._set.fileno())
        super().close(all_fds)
        self._set.close()

    def _serve_ready(self) -> None:
        for number, ready in self._set.poll(0, _MOST_AT_ONCE):
            entry = self.handlers.get(number)
            if entry is None:
                continue  # taken out by the handler of another one
            wanted = self._wanted[number]
            # An error shows to whoever reads or writes next, as on asyncio's own loops.
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
            self._unwatch(number)  # errors are reported as long as it is in the set at all

    def _unwatch(self, number: int) -> None:
        if self._watched.pop(number, None) is not None:
            try:
                self._set.unregister(number)
            except OSError:
                return

    def _call(self, handler: Callable[..., None], file: int | _Selectable, events: int) -> None:
        try:
            handler(file, events)
        except Exception as error:  # noqa: BLE001  # one socket's fault must not stop the others of this turn
            self.asyncio_loop.call_exception_handler(
                {"message": f"Exception in the handler of {file}", "exception": error}
            )
