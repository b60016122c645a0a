"""Passes a request to one of Tornado's own handlers: pages, the API and the upgrade to WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from tornado_proxy.domain.errors import RequestError
from tornado_proxy.http_server.exchange import Exchange
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.http_server.request_body import BodyTimeouts, ByteCount
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection

#: Bytes of a body that Tornado collects: a question or a small JSON document.
_MAX_BODY_BYTES = 1024 * 1024


class TornadoConnection(HTTPConnection):
    """An exchange with the methods that Tornado's handlers call: they know it as `request.connection`."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.context = exchange.transport.context
        #: Called when the client leaves before the response is complete.
        self.close_callback: Callable[[], object] | None = None

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Set the function that is called when the client leaves before the response is complete."""
        self.close_callback = callback

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Write the head and the first bytes of the body."""
        assert isinstance(start_line, ResponseStartLine)
        self.exchange.begin_response(start_line.code, start_line.reason, list(headers.get_all()))
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write bytes of the body; the result is done when the socket has taken all bytes."""
        try:
            return self.exchange.send(chunk)
        except StreamClosedError:
            return self.exchange.transport.drained  # with this error

    def finish(self) -> None:
        """End the response."""
        with contextlib.suppress(StreamClosedError):
            self.exchange.end(b"")

    def detach(self) -> UpgradedConnection:
        """Hand the connection over to another protocol.  The 101 response has been written."""
        return self.exchange.upgrade()

    def close(self) -> None:
        """Close the connection without ending the response; the close callback is not called."""
        self.exchange.close()


def make_tornado_request(exchange: Exchange) -> HTTPServerRequest:
    """Return the request of an exchange as Tornado's handlers know it.

    Raises:
        HTTPInputError: Tornado does not accept it.
    """
    incoming = exchange.incoming
    headers = HTTPHeaders()
    for name, value in incoming.headers:
        headers._as_list.setdefault(name, []).append(value)  # without Tornado's checks: llhttp has checked them
    return HTTPServerRequest(
        connection=TornadoConnection(exchange),
        start_line=RequestStartLine(incoming.method, incoming.target, incoming.version),
        headers=headers,
    )


def find_connection(request: HTTPServerRequest) -> TornadoConnection:
    """Return the connection of a request that make_tornado_request() has made."""
    assert isinstance(request.connection, TornadoConnection)
    return request.connection


def find_incoming(request: HTTPServerRequest) -> IncomingRequest:
    """Return the request that `request` was made of."""
    return find_connection(request).exchange.incoming


class TornadoReceiver:
    """Passes a request to a delegate of Tornado, which collects the body.  Closes its connection if that is too slow.

    Args:
        request: The request.
        delegate: Receives it.
        body_timeouts: Watches the body.
        open_count: Called at the first byte of a body; returns the count of its bytes, which can refuse more.
    """

    def __init__(
        self,
        request: HTTPServerRequest,
        delegate: HTTPMessageDelegate,
        body_timeouts: BodyTimeouts,
        open_count: Callable[[], ByteCount],
    ) -> None:
        self._connection = find_connection(request)
        self._request = request
        self._delegate = delegate
        self._body_timeouts = body_timeouts
        self._open_count = open_count
        self._held: ByteCount | None = None
        self.received_bytes = 0

    def headers_received(self) -> Awaitable[None] | None:
        """Called when the head is complete.

        Raises:
            HTTPInputError: the stated length is too large.
        """
        if self._connection.exchange.incoming.stated_bytes > _MAX_BODY_BYTES:
            raise HTTPInputError("Content-Length too long")
        self._body_timeouts.begin(self)
        request = self._request
        start_line = RequestStartLine(request.method or "", request.uri or "", request.version)
        return self._delegate.headers_received(start_line, request.headers)

    def data_received(self, chunk: bytes) -> None:
        """Called with each chunk of the body.

        Raises:
            HTTPInputError: the body is too large.
        """
        self.received_bytes += len(chunk)
        if self.received_bytes > _MAX_BODY_BYTES:
            raise HTTPInputError("body too large")
        self._held = self._held or self._open_count()
        try:
            self._held.add(len(chunk))
        except RequestError:
            self.on_body_timeout()
            return
        self._delegate.data_received(chunk)

    def find_memory(self) -> None:
        """Return None: Tornado collects the body."""

    def body_read(self, size: int) -> None:
        """Not called without memory."""

    def on_body_timeout(self) -> None:
        """Close the connection: no handler can respond before Tornado has received the whole body."""
        self._connection.close()

    def finish(self) -> None:
        """Called when the request is complete."""
        self._end()
        self._delegate.finish()

    def on_connection_close(self) -> None:
        """Called when the client disconnects before the request is complete."""
        self._end()
        self._delegate.on_connection_close()

    def client_left(self) -> None:
        """Called when the client disconnects after its request and before the end of the response."""
        callback, self._connection.close_callback = self._connection.close_callback, None
        if callback is not None:
            callback()

    def _end(self) -> None:
        self._body_timeouts.end(self)
        if self._held is not None:
            self._held.release()
