"""EpollIOLoop with real sockets."""

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
    """Run `test` on the event loop of a server, with a timeout of 10 seconds."""

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


class EventLog:
    """A handler that records the events it is called with, and reads from `read` if given."""

    def __init__(self, read: socket.socket | None = None) -> None:
        self.events: list[int] = []
        self._read = read
        self._called = asyncio.Event()

    def __call__(self, fd: object, events: int) -> None:
        self.events.append(events)
        if self._read is not None:
            self._read.recv(100)
        self._called.set()

    async def wait(self) -> None:
        await self._called.wait()
        self._called.clear()


async def turns(count: int = 5) -> None:
    """Let the loop poll for events `count` times."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_handler_is_called_when_socket_is_readable_and_when_it_is_writable() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            log = EventLog(read=ours)
            loop.add_handler(ours, log, READ)
            await turns()
            assert log.events == []
            theirs.send(b"x")
            await log.wait()
            assert log.events == [READ]
            loop.update_handler(ours, WRITE)
            log._read = None
            await log.wait()
            assert set(log.events[1:]) == {WRITE}
            loop.remove_handler(ours)

    on_loop(test)


def test_unwanted_event_is_not_delivered_and_does_not_make_the_loop_spin() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            log = EventLog()
            loop.add_handler(ours, log, READ)
            loop.update_handler(ours, IOLoop.ERROR)
            theirs.send(b"x")
            await turns()
            assert log.events == []
            assert (
                select.select([loop._set.fileno()], [], [], 0)[0] == []
            )  # the set is not readable: the loop does not spin
            loop.update_handler(ours, READ)
            await log.wait()
            assert log.events[0] == READ
            loop.remove_handler(ours)

    on_loop(test)


def test_closed_peer_is_reported_to_a_reader_and_does_not_make_the_loop_spin_without_one() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            log = EventLog()
            loop.add_handler(ours, log, IOLoop.ERROR)
            theirs.close()
            await turns()
            assert select.select([loop._set.fileno()], [], [], 0)[0] == []
            loop.update_handler(ours, READ)
            await log.wait()
            assert log.events[0] == READ
            assert ours.recv(10) == b""
            loop.remove_handler(ours)

    on_loop(test)


def test_removed_handler_is_not_called_in_the_same_turn() -> None:
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


def test_failing_handler_is_logged_and_other_handlers_run(caplog: pytest.LogCaptureFixture) -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (first, first_peer), pair() as (second, second_peer):

            def fail(fd: Any, events: int) -> None:
                loop.remove_handler(fd)
                raise ZeroDivisionError

            log = EventLog(read=second)
            loop.add_handler(first, fail, READ)
            loop.add_handler(second, log, READ)
            first_peer.send(b"x")
            second_peer.send(b"x")
            await log.wait()
            loop.remove_handler(second)

    with caplog.at_level(logging.ERROR, "asyncio"):
        on_loop(test)
    assert "ZeroDivisionError" in caplog.text


async def check_reused(loop: EpollIOLoop, number: int) -> None:
    """Open a socket, which gets the file descriptor `number` of a closed one, and read from it."""
    async with pair() as (reused, peer):
        assert reused.fileno() == number  # the kernel uses the lowest free number
        log = EventLog(read=reused)
        loop.add_handler(reused, log, READ)
        peer.send(b"x")
        await log.wait()
        loop.remove_handler(reused)


def test_file_descriptor_is_added_twice_only_after_its_first_socket_was_closed() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, _theirs):
            loop.add_handler(ours, EventLog(), READ)
            with pytest.raises(ValueError, match="added twice"):
                loop.add_handler(ours, EventLog(), READ)
            number = ours.fileno()
            ours.close()
            await check_reused(loop, number)

    on_loop(test)


def test_closed_socket_can_be_removed() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, _theirs):
            number = ours.fileno()
            loop.add_handler(number, EventLog(), READ)
            ours.close()
            loop.remove_handler(number)
            loop.remove_handler(number)
            assert number not in loop.handlers

    on_loop(test)


def test_removed_socket_that_is_added_again_gets_its_events() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            for _ in range(3):
                log = EventLog(read=ours)
                loop.add_handler(ours.fileno(), log, READ)
                theirs.send(b"x")
                await log.wait()
                loop.remove_handler(ours.fileno())
            writable = EventLog()
            loop.add_handler(ours.fileno(), writable, WRITE)
            await writable.wait()
            loop.remove_handler(ours.fileno())
            assert (log.events, writable.events) == ([READ], [WRITE])

    on_loop(test)


def test_event_of_a_removed_socket_does_not_make_the_loop_spin() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, theirs):
            loop.add_handler(ours, EventLog(), READ)
            loop.remove_handler(ours)
            theirs.close()
            await turns()
            assert select.select([loop._set.fileno()], [], [], 0)[0] == []

    on_loop(test)


def test_number_of_a_removed_and_closed_socket_can_be_used_again() -> None:
    async def test(loop: EpollIOLoop) -> None:
        async with pair() as (ours, _theirs):
            number = ours.fileno()
            loop.add_handler(ours, EventLog(), READ)
            loop.remove_handler(ours)
            ours.close()
            await check_reused(loop, number)

    on_loop(test)


def test_hundreds_of_sockets_that_are_ready_together_are_all_served() -> None:
    async def test(loop: EpollIOLoop) -> None:
        readers = []
        served: set[int] = set()
        all_served = asyncio.Event()

        def handler(fd: Any, events: int) -> None:
            os.read(fd, 10)
            served.add(fd)
            if len(served) == len(readers):
                all_served.set()

        pipes = [os.pipe() for _ in range(400)]
        try:
            for read_end, write_end in pipes:
                readers.append(read_end)
                loop.add_handler(read_end, handler, READ)
                os.write(write_end, b"x")
            await all_served.wait()
        finally:
            for read_end, write_end in pipes:
                loop.remove_handler(read_end)
                os.close(read_end)
                os.close(write_end)

    on_loop(test)


def test_iostream_transfers_megabytes() -> None:
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


def test_existing_io_loop_stays() -> None:
    async def main() -> IOLoop:
        before = IOLoop.current()
        event_loop.install()
        assert IOLoop.current() is before
        return before

    assert not isinstance(asyncio.run(main()), EpollIOLoop)
