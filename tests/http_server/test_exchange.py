"""A response is complete when its last byte has been sent, and never if the client disconnects before that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError

from tests.http_server.serving import run_server
from tornado_proxy import tasks
from tornado_proxy.http_server.tornado_request import find_connection

#: Size of the socket buffers: small, so that writes wait for the client.
_SOCKET_BUFFER_BYTES = 4 * 1024

#: Size of a body that does not fit into the socket buffers.
_LARGE_BODY_BYTES = 1024 * 1024


class Responder:
    """Responds to each request with `data` over a connection with small buffers, and queues the result of each.

    A result is "complete", "client gone", or "bytes wait" if finish() returned while bytes were unsent.
    """

    def __init__(self, data: bytes, length: int | None, *, wait_for_close: bool = False) -> None:
        self.results: asyncio.Queue[str] = asyncio.Queue()
        self._data = data
        self._wait_for_close = wait_for_close
        self._headers = [] if length is None else [("Content-Length", str(length))]

    def __call__(self, request: HTTPServerRequest) -> None:
        tasks.spawn(self._respond(request), "respond")

    async def _respond(self, request: HTTPServerRequest) -> None:
        exchange = find_connection(request).exchange
        transport = exchange.transport
        assert transport.socket is not None
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        exchange.begin_response(200, "OK", self._headers)
        try:
            await exchange.send(b"")  # without a length, the body is now sent in chunks with a terminating chunk
            while self._wait_for_close and not transport.closed:  # noqa: ASYNC110  # the connection has no event for it
                await asyncio.sleep(0.01)
            await exchange.end(self._data)
        except StreamClosedError:
            self.results.put_nowait("client gone")
        else:
            self.results.put_nowait("bytes wait" if transport._paused else "complete")


@contextlib.asynccontextmanager
async def send_request(responder: Responder, connection: str) -> AsyncIterator[socket.socket]:
    """Yield the socket of a client that has sent a request with the header `Connection: connection`."""
    async with run_server(responder) as port:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        client.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", port))
            head = f"GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n"
            await loop.sock_sendall(client, head.encode())
            yield client
        finally:
            client.close()


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize(
    "length", [pytest.param(_LARGE_BODY_BYTES, id="with a length"), pytest.param(None, id="in chunks")]
)
def test_response_is_incomplete_if_the_client_disconnects_before_the_last_byte(
    length: int | None, connection: str
) -> None:
    async def run() -> str:
        responder = Responder(b"x" * _LARGE_BODY_BYTES, length)
        async with send_request(responder, connection) as client:
            await asyncio.get_running_loop().sock_recv(client, 1)
            assert responder.results.empty()
            client.close()
            return await asyncio.wait_for(responder.results.get(), 20)

    assert asyncio.run(run()) == "client gone"


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_response_cannot_be_completed_on_a_closed_connection(connection: str) -> None:
    async def run() -> str:
        responder = Responder(b"x", None, wait_for_close=True)
        async with send_request(responder, connection) as client:
            await asyncio.get_running_loop().sock_recv(client, 1)
            client.close()
            return await asyncio.wait_for(responder.results.get(), 20)

    assert asyncio.run(run()) == "client gone"


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_response_is_not_complete_before_its_last_byte_is_sent(connection: str) -> None:
    """The body size varies: at some sizes the socket takes the body but not the terminating chunk."""

    async def respond_with(size: int) -> str:
        responder = Responder(b"x" * size, None)
        async with send_request(responder, connection) as client:
            loop = asyncio.get_running_loop()
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                part = await asyncio.wait_for(loop.sock_recv(client, 700), 20)
                assert part, received[-20:]
                received += part
            return await asyncio.wait_for(responder.results.get(), 20)

    async def run() -> set[str]:
        return {await respond_with(size) for size in range(3_000, 30_000, 257)}

    assert asyncio.run(run()) == {"complete"}
