"""Both kinds of socket sets with real sockets, used as libcurl uses them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator

import pycurl
import pytest

from tornado_proxy import event_loop
from tornado_proxy.upstream.http.client import EpollSockets, LoopSockets

AnySet = EpollSockets | LoopSockets
Test = Callable[["Watched"], Awaitable[None]]

KINDS = [
    pytest.param(
        EpollSockets, marks=pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll"), id="epoll set"
    ),
    pytest.param(LoopSockets, id="event loop"),
]


class Watched:
    """A socket set, and the events that it has reported."""

    def __init__(self, kind: type[AnySet]) -> None:
        self.events: list[tuple[int, int]] = []
        self.on_ready: Callable[[int], object] = lambda _: None
        self._reported = asyncio.Event()
        self._set = kind(asyncio.get_running_loop(), self._report)

    def watch(self, fd: int, event: int) -> None:
        """Watch a socket as libcurl asks for it."""
        self._set.on_socket(event, fd, None, None)

    async def wait(self) -> tuple[int, int]:
        """Wait for the next events, and return them."""
        self._reported.clear()
        await self._reported.wait()
        return self.events[-1]

    def close(self) -> None:
        self._set.close()

    def _report(self, fd: int, action: int) -> None:
        self.events.append((fd, action))
        self._reported.set()
        self.on_ready(fd)


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Return a function that runs a test with a socket set, on the event loop of a server."""

    def run_test(test: Test) -> None:
        async def main() -> None:
            watched = Watched(request.param)
            async with asyncio.timeout(10):
                await test(watched)
            watched.close()

        event_loop.run(main())

    return run_test


@contextlib.contextmanager
def open_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def take_turns() -> None:
    """Let the loop poll for events a few times."""
    for _ in range(5):
        await asyncio.sleep(0.001)


def test_socket_is_reported_when_it_is_readable_and_when_it_is_writable(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        with open_pair() as (ours, theirs):
            fd = ours.fileno()
            watched.on_ready = lambda _: ours.recv(10)
            watched.watch(fd, pycurl.POLL_IN)
            await take_turns()
            assert watched.events == []
            theirs.send(b"x")
            assert await watched.wait() == (fd, pycurl.CSELECT_IN)

            watched.on_ready = lambda fd: watched.watch(fd, pycurl.POLL_REMOVE)
            watched.watch(fd, pycurl.POLL_INOUT)
            assert await watched.wait() == (fd, pycurl.CSELECT_OUT)
            assert len(watched.events) == 2

    run(test)


def test_end_of_a_connection_is_reported_to_its_reader(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        with open_pair() as (ours, theirs):
            watched.watch(ours.fileno(), pycurl.POLL_IN)
            theirs.close()
            assert await watched.wait() == (ours.fileno(), pycurl.CSELECT_IN)
            assert ours.recv(10) == b""
            watched.watch(ours.fileno(), pycurl.POLL_REMOVE)

    run(test)


def test_removed_socket_is_not_reported_until_it_is_watched_again(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        with open_pair() as (ours, theirs):
            fd = ours.fileno()
            for event in (pycurl.POLL_IN, pycurl.POLL_INOUT):
                watched.watch(fd, event)
                watched.watch(fd, pycurl.POLL_REMOVE)
            theirs.send(b"x")
            await take_turns()
            assert watched.events == []

            watched.watch(fd, pycurl.POLL_IN)
            assert await watched.wait() == (fd, pycurl.CSELECT_IN)
            watched.watch(fd, pycurl.POLL_REMOVE)

    run(test)


def test_socket_that_is_removed_in_a_turn_is_not_reported_in_it(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        with open_pair() as (first, first_peer), open_pair() as (second, second_peer):
            both = [first.fileno(), second.fileno()]
            watched.on_ready = lambda _: [watched.watch(fd, pycurl.POLL_REMOVE) for fd in both]
            for fd in both:
                watched.watch(fd, pycurl.POLL_IN)
            first_peer.send(b"x")
            second_peer.send(b"x")
            await take_turns()
            assert len(watched.events) == 1

    run(test)


def test_number_of_a_closed_socket_can_be_used_again(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        with open_pair() as (ours, _theirs):
            fd = ours.fileno()
            watched.watch(fd, pycurl.POLL_IN)
            watched.watch(fd, pycurl.POLL_REMOVE)
        with open_pair() as (reused, peer):
            assert reused.fileno() == fd  # the kernel uses the lowest free number
            watched.on_ready = lambda _: reused.recv(10)
            watched.watch(fd, pycurl.POLL_IN)
            peer.send(b"x")
            assert await watched.wait() == (fd, pycurl.CSELECT_IN)
            watched.watch(fd, pycurl.POLL_REMOVE)

    run(test)


def test_hundreds_of_sockets_that_are_ready_together_are_all_reported(run: Callable[[Test], None]) -> None:
    async def test(watched: Watched) -> None:
        pipes = [os.pipe() for _ in range(400)]
        try:
            for read_end, write_end in pipes:
                os.write(write_end, b"x")
                watched.watch(read_end, pycurl.POLL_IN)
            watched.on_ready = lambda fd: watched.watch(fd, pycurl.POLL_REMOVE)
            while len(watched.events) < len(pipes):
                await watched.wait()
            await take_turns()
            assert {fd for fd, _ in watched.events} == {read_end for read_end, _ in pipes}
            assert len(watched.events) == len(pipes)
        finally:
            for end in (end for pipe in pipes for end in pipe):
                os.close(end)

    run(test)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll")
def test_event_of_a_removed_socket_does_not_make_the_loop_spin() -> None:
    async def main() -> None:
        watched = Watched(EpollSockets)
        with open_pair() as (ours, theirs):
            watched.watch(ours.fileno(), pycurl.POLL_IN)
            watched.watch(ours.fileno(), pycurl.POLL_REMOVE)
            theirs.close()
            await take_turns()
            assert select.select([watched._set._set.fileno()], [], [], 0)[0] == []
        watched.close()

    event_loop.run(main())
