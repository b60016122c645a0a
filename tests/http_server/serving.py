"""A server of ours on a free port, in front of a function that receives each request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.netutil import bind_sockets

from tornado_proxy.http_server.exchange import FindHandler
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.request_parser import Fault
from tornado_proxy.http_server.server import ClientPortServer, IdleConnections

Receive = Callable[[HTTPServerRequest], None]


def make_rejection(fault: Fault) -> bytes:
    """Return a 400 with the server's description of a request that it does not serve."""
    return f"HTTP/1.1 400 Bad Request\r\n\r\n{fault.target} {fault.text}".encode()


class CollectingDelegate(HTTPMessageDelegate):
    """Collects the body of a request."""

    def __init__(self, request: HTTPServerRequest, receive: Receive) -> None:
        self._request = request
        self._receive = receive

    def data_received(self, chunk: bytes) -> None:
        self._request.body += chunk

    def finish(self) -> None:
        self._receive(self._request)


class IdleApplication(FindHandler, Protocol):
    """Routes requests and stops the idle clocks of their connections."""

    @property
    def idle_connections(self) -> IdleConnections:
        """The connections that wait for a request."""


class FunctionApplication:
    """Passes every request to one function."""

    def __init__(self, receive: Receive) -> None:
        self.idle_connections = IdleConnections()
        self._receive = receive

    def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        """Stop the connection's idle clock, as the server requires of its application."""
        self.idle_connections.discard(request.server_connection)  # type: ignore[arg-type]  # a ClientConnection
        return CollectingDelegate(request, self._receive)


@contextlib.asynccontextmanager
async def run_server(receive: Receive, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Pass the requests of a free port to `receive`; yield the port."""
    async with run_application(FunctionApplication(receive), tls) as port:
        yield port


@contextlib.asynccontextmanager
async def run_application(application: IdleApplication, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve `application` on a free port; yield the port."""
    server = ClientPortServer(application, application.idle_connections, BodyTimeouts(), make_rejection, tls)
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


async def exchange(port: int, *parts: bytes, ssl_context: ssl.SSLContext | None = None) -> bytes:
    """Send `parts` apart; return all bytes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl_context)
    received = asyncio.ensure_future(reader.read())
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.001)
        return await asyncio.wait_for(received, 20)
    finally:
        writer.close()
