"""The server of the client port on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tornado_proxy.http_server import server as server_module
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.server import ClientPortServer, IdleConnections

_REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class NagleHandler(RequestHandler):
    """Responds "off" if Nagle's algorithm is off on the connection, else "on"."""

    def get(self) -> None:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        off = connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.finish("off" if off else "on")


class SingleHandlerApplication(Application):
    """Routes every request to one handler."""

    def __init__(self, handler: type[RequestHandler]) -> None:
        super().__init__([("/", handler)], log_function=lambda handler: None)
        self.idle_connections = IdleConnections()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Stop the connection's idle clock, as the server requires of its application."""
        self.idle_connections.discard(request.server_connection)
        return super().find_handler(request, **kwargs)


@contextlib.asynccontextmanager
async def run_server(handler: type[RequestHandler] = NagleHandler) -> AsyncIterator[int]:
    """Serve `handler` on a free port; yield the port."""
    application = SingleHandlerApplication(handler)
    server = ClientPortServer(application, application.idle_connections, BodyTimeouts())
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


async def read_response_body(reader: asyncio.StreamReader) -> str:
    """Read one response that has a Content-Length; return its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return (await reader.readexactly(int(length.partition(b":")[2]))).decode()


def test_nagle_stays_off_on_a_keep_alive_connection() -> None:
    async def run() -> list[str]:
        async with run_server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            bodies = []
            for _ in range(3):
                writer.write(_REQUEST)
                bodies.append(await read_response_body(reader))
            writer.close()
            return bodies

    assert asyncio.run(run()) == ["off", "off", "off"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(b"GET / HTTP/1.1\r\nHo", id="half of the headers sent"),
        pytest.param(_REQUEST, id="kept open after a response"),
    ],
)
def test_connection_without_complete_headers_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.05)

    async def run() -> bytes:
        async with run_server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            data = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return data

    assert asyncio.run(run()).rpartition(b"\r\n")[2] == (b"off" if sent == _REQUEST else b"")


def test_slow_request_does_not_count_as_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_IDLE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)

    class SlowHandler(RequestHandler):
        async def get(self) -> None:
            await asyncio.sleep(0.5)
            self.finish("done")

    async def run() -> str:
        async with run_server(SlowHandler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            body = await asyncio.wait_for(read_response_body(reader), 20)
            writer.close()
            return body

    assert asyncio.run(run()) == "done"
