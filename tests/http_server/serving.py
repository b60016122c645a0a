"""A server of ours on a free port, in front of a function that receives each request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest, RequestStartLine
from tornado.netutil import bind_sockets

from tornado_proxy.http_server.exchange import Exchange, RequestReceiver
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.request_parser import Fault
from tornado_proxy.http_server.server import ClientPortServer
from tornado_proxy.http_server.tornado_request import find_connection, make_tornado_request

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


class Application(Protocol):
    """Routes requests, as Tornado's Application does."""

    def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        """Return the delegate that receives `request`."""


class FunctionApplication:
    """Passes every request to one function."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        return CollectingDelegate(request, self._receive)


class DelegateReceiver:
    """Passes a request to a delegate of Tornado."""

    def __init__(self, request: HTTPServerRequest, delegate: HTTPMessageDelegate) -> None:
        self._request = request
        self._delegate = delegate
        self.data_received = delegate.data_received
        self.finish = delegate.finish
        self.on_connection_close = delegate.on_connection_close

    def headers_received(self) -> Awaitable[None] | None:
        start_line = RequestStartLine(self._request.method or "", self._request.uri or "", self._request.version)
        return self._delegate.headers_received(start_line, self._request.headers)

    def find_memory(self) -> None:
        """Return None: the delegate collects the body."""

    def body_read(self, size: int) -> None:
        raise AssertionError("it has no memory")

    def client_left(self) -> None:
        callback = find_connection(self._request).close_callback
        if callback is not None:
            callback()


class Routes:
    """Passes requests to an application of Tornado's kind."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def find_receiver(self, exchange: Exchange) -> RequestReceiver:
        request = make_tornado_request(exchange)
        return DelegateReceiver(request, self._application.find_handler(request))


@contextlib.asynccontextmanager
async def run_server(receive: Receive, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Pass the requests of a free port to `receive`; yield the port."""
    async with run_application(FunctionApplication(receive), tls) as port:
        yield port


@contextlib.asynccontextmanager
async def run_application(application: Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve `application` on a free port; yield the port."""
    async with run_on_free_port(ClientPortServer(Routes(application), BodyTimeouts(), make_rejection, tls)) as port:
        yield port


@contextlib.asynccontextmanager
async def run_on_free_port(server: ClientPortServer) -> AsyncIterator[int]:
    """Let `server` accept connections on a free port; yield the port."""
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
