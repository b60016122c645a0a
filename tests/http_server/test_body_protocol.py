"""The rest of a large body is read into the memory of its receiver."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.http_server.serving import exchange, make_rejection, run_on_free_port
from tornado_proxy.gateway.bodies.buffers import BodyBuffer, BodyBuffers
from tornado_proxy.http_server.body_protocol import MIN_MISSING_BYTES
from tornado_proxy.http_server.exchange import BodyMemory, Exchange
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.server import ClientPortServer

#: 1.5 MB of which no two pieces are equal.
BODY = random.Random(7).randbytes(1_500_000)
HEAD = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

Run = Callable[[Coroutine[Any, Any, bytes]], bytes]


class CollectingReceiver:
    """Collects a body in memory up to `memory_bytes`, then from chunks; responds with its length and its end."""

    def __init__(self, exchange: Exchange, application: CollectingApplication) -> None:
        self.exchange = exchange
        self.application = application
        self.buffer: BodyBuffer | None = None
        self.chunks: list[bytes] = []
        self.read_bytes = 0

    def headers_received(self) -> Awaitable[None] | None:
        return None

    def data_received(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def find_memory(self) -> BodyMemory | None:
        if self.read_bytes >= self.application.memory_bytes:
            return None
        if self.buffer is None:
            self.buffer = self.application.buffers.open(b"".join(self.chunks))
            self.chunks.clear()
        return self.buffer

    def body_read(self, size: int) -> None:
        self.read_bytes += size
        self.application.read.set()

    def finish(self) -> None:
        asyncio.get_running_loop().call_soon(self.respond)

    def respond(self) -> None:
        body = b"" if self.buffer is None else self.buffer.finish()
        body += b"".join(self.chunks)
        self.application.bodies.append(body)
        self.exchange.begin_response(200, "OK", [("Content-Length", "0")])
        self.exchange.end(b"")

    def on_connection_close(self) -> None:
        self.application.left.set()

    def client_left(self) -> None:
        """The connection closes after its last response."""


class CollectingApplication:
    """Collects the bodies of all requests."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.buffers = BodyBuffers()
        self.bodies: list[bytes] = []
        self.receivers: list[CollectingReceiver] = []
        self.read, self.left = asyncio.Event(), asyncio.Event()

    def find_receiver(self, exchange: Exchange) -> CollectingReceiver:
        self.receivers.append(CollectingReceiver(exchange, self))
        return self.receivers[-1]

    def server(self) -> ClientPortServer:
        return ClientPortServer(self, BodyTimeouts(), make_rejection)


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    run: Run = request.param
    return run


@pytest.mark.parametrize("memory_bytes", [0, 200_000, 10_000_000])
def test_bodies_arrive_unchanged_with_the_requests_behind_them(run: Run, memory_bytes: int) -> None:
    """The receiver has memory for none of a body, for its first bytes, or for all of it."""
    application = CollectingApplication(memory_bytes)
    sizes = 1_500_000, MIN_MISSING_BYTES, 700_000, 3
    sent = b"".join(HEAD % (at, size) + BODY[:size] for at, size in enumerate(sizes)) + LAST

    async def send() -> bytes:
        async with run_on_free_port(application.server()) as port:
            return await exchange(port, sent[:100_000], sent[100_000:1_600_000], sent[1_600_000:])

    received = run(send())

    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert [len(body) for body in application.bodies] == [*sizes, 0]
    assert all(body == BODY[: len(body)] for body in application.bodies)


def test_rest_of_a_large_body_is_read_into_memory() -> None:
    application = CollectingApplication(10_000_000)

    async def send() -> bytes:
        async with run_on_free_port(application.server()) as port:
            return await exchange(port, HEAD % (0, len(BODY)) + BODY + LAST)

    uvloop.run(send())

    assert application.bodies[0] == BODY
    assert len(BODY) - application.receivers[0].read_bytes <= 256_000  # the first read of uvloop


def test_client_that_leaves_in_the_middle_is_noticed(run: Run) -> None:
    application = CollectingApplication(10_000_000)

    async def leave() -> bytes:
        async with run_on_free_port(application.server()) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD % (0, len(BODY)) + BODY[:-1])
            await asyncio.wait_for(application.read.wait(), 20)
            writer.close()
            await asyncio.wait_for(application.left.wait(), 20)
        return b""

    run(leave())

    assert application.bodies == []


def test_request_is_freed_while_its_connection_waits_for_the_next() -> None:
    """uvloop keeps the last protocol that had memory until the connection closes."""
    application = CollectingApplication(10_000_000)

    async def send() -> bool:
        async with run_on_free_port(application.server()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD % (0, len(BODY)) + BODY)
            await reader.readuntil(b"\r\n\r\n")
            freed = weakref.ref(application.receivers.pop().exchange)
            gc.collect()
            writer.close()
            return freed() is None

    assert uvloop.run(send())
