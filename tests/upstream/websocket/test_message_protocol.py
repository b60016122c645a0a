"""The frames that end a WebSocket, and their times, on a transport in memory with a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tornado.iostream import StreamClosedError

from tests import virtual_time
from tornado_proxy.upstream.websocket.message_protocol import MessageProtocol, Wait

CLOSE_1000 = b"\x88\x02\x03\xe8"
Messages = list[str | bytes]


class MemoryTransport(asyncio.Transport):
    """Keeps the bytes written to it.  fill() makes it wait, as a full socket does."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.protocol: asyncio.Protocol | None = None
        self.reading = True
        self.finished = self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.finished
        self.written.append(bytes(data))

    def write_eof(self) -> None:
        self.finished = True

    def can_write_eof(self) -> bool:
        return True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (0, 0)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Server(MessageProtocol):
    """The side of a server, with a client that does not mask its frames."""

    def __init__(self, handle: Callable[[str | bytes], Wait | None]) -> None:
        super().__init__(mask_outgoing=True, max_message_bytes=100)
        self.handle = handle
        self.transport = MemoryTransport()
        self.ends: list[float] = []
        self.attach(self.transport, b"")
        self.start()

    def on_message(self, message: str | bytes) -> Wait | None:
        return self.handle(message)

    def on_end(self) -> None:
        self.ends.append(self._loop.time())

    def start_close(self, code: int | None = 1000, reason: str = "") -> None:
        super().start_close(code, reason)


def run(work: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(work)


def unmask(frame: bytes) -> bytes:
    """Return a short frame without its mask."""
    mask, payload = frame[2:6], frame[6:]
    return bytes((frame[0], frame[1] & 0x7F)) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def test_close_that_is_not_confirmed_ends_after_five_seconds_and_its_connection_after_five_more() -> None:
    async def work() -> None:
        server = Server(lambda message: None)
        server.start_close()
        server.start_close(1011, "too late")
        await asyncio.sleep(4.9)
        assert [unmask(frame) for frame in server.transport.written] == [CLOSE_1000]
        assert server.ends == []
        await asyncio.sleep(0.2)
        assert server.ends == [5]
        assert (server.transport.finished, server.transport.closed) == (True, False)
        await asyncio.sleep(5)
        assert server.transport.closed
        assert server.ends == [5]

    run(work())


def test_messages_that_arrived_before_the_connection_broke_are_handled_first() -> None:
    received: Messages = []
    release: asyncio.Event | None = None

    async def wait() -> None:
        assert release is not None
        await release.wait()

    def handle(message: str | bytes) -> Wait | None:
        received.append(message)
        return wait() if message == "a" else None

    async def work() -> None:
        nonlocal release
        release = asyncio.Event()
        server = Server(handle)
        await asyncio.sleep(0)
        server.data_received(b"\x81\x01a\x81\x01b")
        assert not server.transport.reading
        server.data_received(b"\x81\x01c")  # a transport of TLS has decrypted it already
        server.transport.abort()
        await asyncio.sleep(1)
        assert (received, server.ends) == (["a"], [])
        with pytest.raises(StreamClosedError):
            server.send("late")
        release.set()
        await asyncio.sleep(1)
        assert (received, server.ends) == (["a", "b", "c"], [1])

    run(work())


def test_peer_that_reads_no_pong_gets_the_last_one_when_it_reads_again() -> None:
    async def work() -> None:
        server = Server(lambda message: None)
        await asyncio.sleep(0)
        server.pause_writing()
        for payload in (b"1", b"2", b"3"):
            server.data_received(b"\x89\x01" + payload)
        assert server.transport.written == []
        server.resume_writing()
        server.data_received(b"\x89\x014")
        assert [unmask(frame) for frame in server.transport.written] == [b"\x8a\x013", b"\x8a\x014"]

    run(work())


@pytest.mark.parametrize("lost", [False, True], ids=["the socket takes them", "the connection breaks"])
def test_message_on_a_full_socket_waits_until_its_end(lost: bool) -> None:
    async def work() -> None:
        server = Server(lambda message: None)
        await asyncio.sleep(0)
        server.pause_writing()
        waits = [server.send("a"), server.send("b")]
        assert None not in waits
        tasks = [asyncio.ensure_future(wait) for wait in waits if wait is not None]
        await asyncio.sleep(1)
        assert not any(task.done() for task in tasks)
        if lost:
            server.transport.abort()
        else:
            server.resume_writing()
        await asyncio.gather(*tasks)
        assert server.ends == ([1] if lost else [])
        assert [unmask(frame) for frame in server.transport.written] == [b"\x81\x01a", b"\x81\x01b"]

    run(work())


@pytest.mark.parametrize("later", [False, True], ids=["at once", "after a wait"])
def test_failure_of_a_handler_ends_the_websocket(later: bool) -> None:
    class HandlerError(Exception):
        pass

    async def fail() -> None:
        raise HandlerError

    def handle(message: str | bytes) -> Wait | None:
        if later:
            return fail()
        raise HandlerError

    async def work() -> None:
        server = Server(handle)
        await asyncio.sleep(0)
        if later:
            server.data_received(b"\x81\x01a\x81\x01b")
            await asyncio.sleep(1)
        else:
            with pytest.raises(HandlerError):
                server.data_received(b"\x81\x01a\x81\x01b")
        assert len(server.ends) == 1
        assert server.transport.finished

    run(work())


def test_close_frame_of_the_peer_is_confirmed_with_its_code_and_ends_what_is_behind_it() -> None:
    received: Messages = []

    async def work() -> None:
        server = Server(received.append)
        await asyncio.sleep(0)
        server.data_received(b"\x81\x01a\x88\x06\x0f\xa1done\x81\x01b")
        server.data_received(b"\x81\x01c")
        assert (server.close_code, server.close_reason, len(server.ends)) == (4001, "done", 1)
        assert [unmask(frame) for frame in server.transport.written] == [b"\x88\x02\x0f\xa1"]
        server.start_close()
        assert len(server.transport.written) == 1

    run(work())
    assert received == ["a"]


def test_connection_that_has_closed_before_the_start_ends_at_once() -> None:
    async def work() -> None:
        server = Server(lambda message: None)
        server.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.ends == [0]
        server.connection_lost(None)
        assert server.ends == [0]

    run(work())


@pytest.mark.parametrize(
    ("code", "reason", "frame"),
    [
        (None, "", b"\x88\x00"),
        (None, "why", b"\x88\x05\x03\xe8why"),
        (1006, "", b"\x88\x00"),
        (1005, "why", b"\x88\x05\x03\xe8why"),
        (4999, "r" * 200, b"\x88\x7a\x13\x87" + b"r" * 120),
    ],
)
def test_close_frame_has_only_what_may_be_sent(code: int | None, reason: str, frame: bytes) -> None:
    async def work() -> None:
        server = Server(lambda message: None)
        server.start_close(code, reason)
        assert [unmask(frame) for frame in server.transport.written] == [frame]
        server.transport.abort()
        await asyncio.sleep(1)

    run(work())
