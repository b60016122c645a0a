"""Tornado's IOLoop on an epoll set of its own, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from tornado_proxy import event_loop
from tornado_proxy.event_loop import EpollIOLoop

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")

READ, WRITE = IOLoop.READ, IOLoop.WRITE


def on_loop(test: Callable[[EpollIOLoop], Coroutine[Any, Any, None]]) -> None:
    """Run `test` on the loop that a server runs on."""

    async def main() -> None:
        loop = IOLoop.current()
        assert isinstance(loop, EpollIOLoop)
        async with asyncio.timeout(10):
            await test(loop)

    event_loop.run(main())


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


class Seen:
    """The events that a handler was called with."""

    def __init__(self, read: socket.socket | None = None) -> None:
        self.events: list[int] = []
        self._read = read
        self._some = asyncio.Event()

    def __call__(self, fd: object, events: int) -> None:
        self.events.append(events)
        if self._read is not None:
            self._read.recv(100)
        self._some.set()

    async def some(self) -> None:
        await self._some.wait()
        self._some.clear()


async def turns(count: int = 5) -> None:
    """Let the loop look for events `count` times."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_a_socket_is_served_when_it_can_be_read_and_when_it_can_be_written() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            seen = Seen(read=ours)
            loop.add_handler(ours, seen, READ)
            await turns()
            assert seen.events == []
            theirs.send(b"x")
            await seen.some()
            assert seen.events == [READ]
            loop.update_handler(ours, WRITE)
            seen._read = None
            await seen.some()
            assert set(seen.events[1:]) == {WRITE}
            loop.remove_handler(ours)

    on_loop(test)


def test_what_is_no_longer_wanted_is_not_told_and_costs_one_look() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            seen = Seen()
            loop.add_handler(ours, seen, READ)
            loop.update_handler(ours, IOLoop.ERROR)
            theirs.send(b"x")
            await turns()
            assert seen.events == []
            assert select.select([loop._set.fileno()], [], [], 0)[0] == []  # the set is quiet: the loop does not spin
            loop.update_handler(ours, READ)
            await seen.some()
            assert seen.events[0] == READ
            loop.remove_handler(ours)

    on_loop(test)


def test_a_closed_peer_is_told_to_a_reader_and_does_not_make_the_loop_spin_where_nobody_reads() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            seen = Seen()
            loop.add_handler(ours, seen, IOLoop.ERROR)
            theirs.close()
            await turns()
            assert select.select([loop._set.fileno()], [], [], 0)[0] == []
            loop.update_handler(ours, READ)
            await seen.some()
            assert seen.events[0] == READ
            assert ours.recv(10) == b""
            loop.remove_handler(ours)

    on_loop(test)


def test_a_handler_that_removes_another_one_keeps_it_from_being_called() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (first, first_peer), pair() as (second, second_peer):
            called: list[str] = []

            def either(name: str, other: socket.socket) -> Callable[[Any, int], None]:
                def handler(fd: Any, events: int) -> None:
                    called.append(name)
                    loop.remove_handler(fd)
                    loop.remove_handler(other)

                return handler

            loop.add_handler(first, either("first", second), READ)
            loop.add_handler(second, either("second", first), READ)
            first_peer.send(b"x")
            second_peer.send(b"x")
            await turns()
            assert len(called) == 1

    on_loop(test)


def test_a_handler_that_fails_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (first, first_peer), pair() as (second, second_peer):

            def fail(fd: Any, events: int) -> None:
                loop.remove_handler(fd)
                raise ZeroDivisionError

            seen = Seen(read=second)
            loop.add_handler(first, fail, READ)
            loop.add_handler(second, seen, READ)
            first_peer.send(b"x")
            second_peer.send(b"x")
            await seen.some()
            loop.remove_handler(second)

    with caplog.at_level(logging.ERROR, "asyncio"):
        on_loop(test)
    assert "ZeroDivisionError" in caplog.text


def test_a_number_is_taken_twice_only_when_its_first_socket_was_closed_without_a_word() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, _theirs):
            loop.add_handler(ours, Seen(), READ)
            with pytest.raises(ValueError, match="added twice"):
                loop.add_handler(ours, Seen(), READ)
            number = ours.fileno()
            ours.close()
            async with pair() as (again, peer):
                assert again.fileno() == number  # the kernel gives out the lowest number that is free
                seen = Seen(read=again)
                loop.add_handler(again, seen, READ)
                peer.send(b"x")
                await seen.some()
                loop.remove_handler(again)

    on_loop(test)


def test_a_socket_that_was_closed_first_can_still_be_removed() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, _theirs):
            number = ours.fileno()
            loop.add_handler(number, Seen(), READ)
            ours.close()
            loop.remove_handler(number)
            loop.remove_handler(number)
            assert number not in loop.handlers

    on_loop(test)


def test_thousands_of_sockets_that_are_ready_at_once_are_all_served() -> None:
    async def test(loop: EpollIOLoop) -> None:
        readers = []
        served: set[int] = set()
        everything = asyncio.Event()

        def handler(fd: Any, events: int) -> None:
            os.read(fd, 10)
            served.add(fd)
            if len(served) == len(readers):
                everything.set()

        pipes = [os.pipe() for _ in range(400)]
        try:
            for reading, writing in pipes:
                readers.append(reading)
                loop.add_handler(reading, handler, READ)
                os.write(writing, b"x")
            await everything.wait()
        finally:
            for reading, writing in pipes:
                loop.remove_handler(reading)
                os.close(reading)
                os.close(writing)

    on_loop(test)


def test_tornado_s_streams_carry_megabytes_over_it() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            sender, receiver = IOStream(ours), IOStream(theirs)
            data = os.urandom(4 * 1024 * 1024)
            sending = asyncio.ensure_future(sender.write(data))
            assert await receiver.read_bytes(len(data)) == data
            await sending
            sender.close()
            assert await receiver.read_until_close() == b""

    on_loop(test)


def test_where_an_io_loop_is_there_already_it_stays() -> None:
    async def main() -> IOLoop:
        before = IOLoop.current()
        event_loop.install()
        assert IOLoop.current() is before
        return before

    assert not isinstance(asyncio.run(main()), EpollIOLoop)
