"""One request on a connection and its response.  Tornado's handlers call it `request.connection`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPOutputError, RequestStartLine, ResponseStartLine

from tornado_proxy.http_server.client_transport import ClientTransport
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection

_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"

#: Statuses whose responses have no body and no length (RFC 9110 section 6.4.1).
_STATUSES_WITHOUT_BODY = frozenset({204, 304})

_SWITCHING_PROTOCOLS = 101

#: The values of a response's headers by name, spelled as Tornado spells them.
Fields = dict[str, list[str]]


class RequestReceiver(Protocol):
    """Receives one request and responds to it."""

    def headers_received(self) -> Awaitable[None] | None:
        """Called when the head is complete; return an awaitable that delays the body, None if nothing does."""

    def data_received(self, chunk: bytes) -> None:
        """Called with each chunk of the body."""

    def finish(self) -> None:
        """Called when the request is complete."""

    def on_connection_close(self) -> None:
        """Called when the client disconnects before the request is complete."""


class FindReceiver(Protocol):
    """Routes requests."""

    def find_receiver(self, exchange: Exchange) -> RequestReceiver:
        """Return the receiver of the request `exchange.incoming`."""


class ExchangeOwner(Protocol):
    """The connection of an exchange."""

    def end_exchange(self, exchange: Exchange) -> None:
        """Called when the response is complete."""

    def rest(self) -> None:
        """Called when a response without a length begins, which can last for hours."""

    def upgrade(self) -> UpgradedConnection:
        """Hand the connection over to another protocol."""


class Exchange(HTTPConnection):
    """Passes a request to its receiver and frames the response.

    Args:
        transport: The transport of the connection.
        incoming: The request.
        owner: The connection.
    """

    def __init__(self, transport: ClientTransport, incoming: IncomingRequest, owner: ExchangeOwner) -> None:
        self.incoming = incoming
        self.context = transport.context
        self.transport = transport
        self._owner = owner
        self._receiver: RequestReceiver | None = None
        self._close_callback: Callable[[], object] | None = None
        #: True if the receiver waits before it takes the body.
        self.preparing = False
        #: True if the receiver has the whole request, or has heard that the client has left.
        self.received = False
        #: True after the head of the response has been written.
        self.response_begun = False
        #: True after the end of the response has been written.
        self.response_ended = False
        self._switching = False
        self._chunked = False
        #: Body bytes up to the stated Content-Length; None without one.
        self.remaining_bytes: int | None = None
        #: True if only the end of the connection marks the end of the body: HTTP/1.0 has no chunks.
        self.close_delimited = False

    # The request.

    def begin(self, application: FindReceiver) -> Awaitable[None] | None:
        """Pass the head to the receiver; return the awaitable that delays the body, if any.

        Raises:
            HTTPInputError: the head is malformed, or states a body that is too large.
        """
        self.incoming.receive(self.context.remote_ip, self.context.protocol)
        self._receiver = application.find_receiver(self)
        return self._receiver.headers_received()

    def request_body(self) -> None:
        """Send 100-continue if the client waits for it."""
        incoming = self.incoming
        if incoming.complete or incoming.body or self.response_ended:
            return
        if incoming.expects_continue:
            self.transport.write(_CONTINUE)

    def deliver(self) -> None:
        """Pass the body as far as it has arrived.

        Raises:
            HTTPInputError: it is too large.
        """
        incoming, receiver = self.incoming, self._receiver
        if self.received or receiver is None:
            return
        if incoming.body:
            data, incoming.body = incoming.body, b""
            receiver.data_received(data)
        if incoming.complete and not self.response_ended:
            self.received = True
            self._receiver = None  # a cycle otherwise, because it has this exchange
            receiver.finish()

    def pause_body(self) -> None:
        """Read nothing more of the request until resume_body()."""
        self.transport.pause_reading()

    def resume_body(self) -> None:
        """Read the request again."""
        self.transport.resume_reading()

    def client_left(self) -> None:
        """Tell the handler that the connection has closed, or the receiver if the request is incomplete."""
        receiver, callback = self._receiver, self._close_callback
        self._receiver = self._close_callback = None
        if not self.received:
            self.received = True
            if receiver is not None:
                receiver.on_connection_close()
        elif callback is not None:
            callback()

    # The response, called by Tornado's RequestHandler.

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Set the function that is called when the client leaves before the response is complete."""
        self._close_callback = callback

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Write the head and the first bytes of the body."""
        assert isinstance(start_line, ResponseStartLine)
        return self.start_response(start_line.code, start_line.reason, dict(headers._as_list), chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write bytes of the body; the result is done when the socket has taken all bytes."""
        return self.transport.write(self._frame(chunk))

    def finish(self) -> None:
        """End the response."""
        self.end_response(b"")

    def detach(self) -> UpgradedConnection:
        """Hand the connection over to another protocol.  The 101 response has been written."""
        assert self._switching
        self._receiver = self._close_callback = None
        return self._owner.upgrade()

    def close(self) -> None:
        """Close the connection without ending the response; its close callback is not called."""
        self._close_callback = None
        self.transport.abort()

    # The response, called by ResponseWriter.

    def start_response(self, status: int, reason: str, fields: Fields, data: bytes) -> asyncio.Future[None]:
        """Write the head and `data`; `fields` gets the headers that tell the client where the body ends.

        Raises:
            ValueError: a line end inside a line: it would begin another header.
        """
        self._set_framing(status, fields)
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {value}" for name, values in fields.items() for value in values]
        text = "\r\n".join(lines)
        if not text.count("\r") == text.count("\n") == len(lines) - 1:
            raise ValueError("a header of the response contains a line end")
        self.response_begun = True
        head = f"{text}\r\n\r\n".encode("latin-1")
        return self.transport.write(head + self._frame(data) if data else head)

    def end_response(self, data: bytes) -> asyncio.Future[None]:
        """Write `data` and the end of the body; the result is done when the socket has taken them.

        Raises:
            HTTPOutputError: the body is shorter than its Content-Length; the connection is closed.
        """
        last = self._frame(data) if data else b""
        if self.remaining_bytes and not self.transport.closed:
            self.close()
            raise HTTPOutputError(f"{self.remaining_bytes} bytes of the response are missing")
        if self._chunked:
            last += b"0\r\n\r\n"
        self.response_ended = True
        self._close_callback = None
        written = self.transport.write(last) if last else self.transport.drained
        if not self._switching:
            if written.done():
                self._owner.end_exchange(self)
            else:
                written.add_done_callback(self._on_written)
        return written

    def reset(self) -> None:
        """Close the connection without ending the response, so that it never looks complete."""
        self._close_callback = None
        # FIN would mark the end of a complete body; RST tells the client that it is cut.
        self.transport.abort(reset=self.close_delimited)

    def _on_written(self, written: asyncio.Future[None]) -> None:
        if not written.cancelled() and written.exception() is None:
            self._owner.end_exchange(self)

    def _frame(self, data: bytes) -> bytes:
        if self.remaining_bytes is not None:
            self.remaining_bytes -= len(data)
            if self.remaining_bytes < 0:
                self.close()
                raise HTTPOutputError("the response is longer than its Content-Length")
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def _set_framing(self, status: int, fields: Fields) -> None:
        """Choose where the body ends (RFC 9112 section 6.3)."""
        incoming, length = self.incoming, fields.get("Content-Length")
        without_body = incoming.method == "HEAD" or status in _STATUSES_WITHOUT_BODY or status < 200
        if incoming.method == "HEAD" or status == 304:
            self.remaining_bytes = 0
        elif length is not None:
            self.remaining_bytes = int(",".join(length))
        without_end = not without_body and length is None
        if without_end and incoming.version == "HTTP/1.0":
            self.close_delimited = True
            incoming.keep_alive = False
        self._set_connection_header(status, fields)
        if without_end and incoming.version == "HTTP/1.1":
            self._chunked = True
            fields["Transfer-Encoding"] = ["chunked"]
            self._owner.rest()

    def _set_connection_header(self, status: int, fields: Fields) -> None:
        """Say whether the connection stays open, unless the version says it."""
        if status == _SWITCHING_PROTOCOLS:
            self._switching = True
        elif self.incoming.version == "HTTP/1.0":
            if self.incoming.keep_alive:
                fields["Connection"] = ["Keep-Alive"]
        elif not (self.incoming.keep_alive and self.received):
            fields["Connection"] = ["close"]
