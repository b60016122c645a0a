"""The end of an answer: it has come when its last byte has left, and does not come when the client leaves before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

from tornado_proxy import tasks
from tornado_proxy.http_server.response_writer import ResponseWriter

_SMALL_BYTES = 4 * 1024
_MUCH_BYTES = 1024 * 1024


class Ends:
    """Answers each request with `data` over a connection that takes little, and tells how that ended."""

    def __init__(self, data: bytes, length: int | None, *, after_the_client: bool = False) -> None:
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self._data = data
        self._after_the_client = after_the_client
        self._length = [] if length is None else [("Content-Length", str(length))]

    def __call__(self, request: HTTPServerRequest) -> None:
        tasks.spawn(self._answer(request), "answer")

    async def _answer(self, request: HTTPServerRequest) -> None:
        assert isinstance(request.connection, HTTP1Connection)
        stream = request.connection.stream
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BYTES)
        one = ResponseWriter(request)
        one.begin(200, "OK", self._length)
        try:
            await one.send(b"")  # without a length it now comes in chunks, with an end of its own
            while self._after_the_client and not one.closed:  # noqa: ASYNC110  # the connection has no event for it
                await asyncio.sleep(0.01)
            await one.finish(self._data)
        except StreamClosedError:
            self.ends.put_nowait("the client has gone")
        else:
            self.ends.put_nowait("bytes wait" if stream.writing() else "whole")


@contextlib.asynccontextmanager
async def asked(ends: Ends, connection: str) -> AsyncIterator[socket.socket]:
    """A client that has asked and does not read."""
    server = HTTPServer(ends)
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    client.setblocking(False)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, listening.getsockname())
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\n\r\n" % connection.encode())
        yield client
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("length", [pytest.param(_MUCH_BYTES, id="with a length"), pytest.param(None, id="in chunks")])
def test_a_client_that_leaves_before_the_last_byte_has_left_did_not_get_the_answer(
    length: int | None, connection: str
) -> None:
    async def run() -> str:
        ends = Ends(b"x" * _MUCH_BYTES, length)
        async with asked(ends, connection) as client:
            await asyncio.get_running_loop().sock_recv(client, 1)
            assert ends.ends.empty()
            client.close()
            return await asyncio.wait_for(ends.ends.get(), 20)

    assert asyncio.run(run()) == "the client has gone"


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_an_answer_cannot_end_on_a_connection_that_has_closed(connection: str) -> None:
    async def run() -> str:
        ends = Ends(b"x", None, after_the_client=True)
        async with asked(ends, connection) as client:
            await asyncio.get_running_loop().sock_recv(client, 1)
            client.close()
            return await asyncio.wait_for(ends.ends.get(), 20)

    assert asyncio.run(run()) == "the client has gone"


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_an_answer_has_not_ended_before_its_last_byte_has_left(connection: str) -> None:
    """Sizes step by step, so that at some of them the connection takes the data and not the end behind it."""

    async def end_of(size: int) -> str:
        ends = Ends(b"x" * size, None)
        async with asked(ends, connection) as client:
            loop = asyncio.get_running_loop()
            seen = b""
            while not seen.endswith(b"\r\n0\r\n\r\n"):
                part = await asyncio.wait_for(loop.sock_recv(client, 700), 20)
                assert part, seen[-20:]
                seen += part
            return await asyncio.wait_for(ends.ends.get(), 20)

    async def run() -> set[str]:
        return {await end_of(size) for size in range(3_000, 30_000, 257)}

    assert asyncio.run(run()) == {"whole"}
