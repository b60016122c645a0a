"""Writes one relayed response to the client's connection: the head, then body bytes as they arrive.

It bypasses RequestHandler.write, flush and finish, which buffer a page, compute an ETag and run output transforms, and
HTTP1Connection.write_headers, which calls six functions for each header.  Framing of the body (chunks, the check of
Content-Length) stays with Tornado's HTTP1Connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from http.client import responses

from tornado.concurrent import Future, future_add_done_callback
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest, ResponseStartLine, _normalize_header
from tornado.iostream import StreamClosedError

from tornado_proxy.http_server.lingering_close import close_lingering, duplicate_socket

#: Statuses whose responses have no body and no length (RFC 9110 section 6.4.1).
_STATUSES_WITHOUT_BODY = frozenset({204, 304})

#: A value of SO_LINGER with which close() sends RST instead of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of a response: the values of its headers by name, spelled as Tornado spells them."""

    status: int
    reason: str
    headers: dict[str, list[str]]

    def encode(self) -> bytes:
        """Return the head as bytes; raise ValueError for a line end inside a line: it would begin another header."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines += [f"{name}: {value}" for name, values in self.headers.items() for value in values]
        text = "\r\n".join(lines)
        if not text.count("\r") == text.count("\n") == len(lines) - 1:
            raise ValueError("a header of the response contains a line end")
        return f"{text}\r\n\r\n".encode("latin-1")


class ResponseWriter:
    """Writes a response with begin() once, send() any number of times, then finish() or abort().

    Await each send() before the next one: HTTP1Connection keeps the future of its latest write only, and an earlier one
    never resolves.  send() and finish() raise StreamClosedError if the client has disconnected.
    """

    __slots__ = (
        "_close_delimited",
        "_connection",
        "_delivery",
        "_finished",
        "_head",
        "_http10",
        "_pending_write",
        "_remaining_bytes",
        "_request",
        "_without_body",
        "client_gone",
        "headers_sent",
    )

    def __init__(self, request: HTTPServerRequest) -> None:
        assert isinstance(request.connection, HTTP1Connection)
        self._connection = request.connection
        self._request = request
        self._http10 = request.version == "HTTP/1.0"
        self._without_body = request.method == "HEAD"
        #: True if only the end of the connection marks the end of the body: HTTP/1.0 has no chunks.
        self._close_delimited = False
        self._head: _Head | None = None
        self._pending_write: asyncio.Future[None] | None = None
        #: Body bytes up to the stated Content-Length; None without one.
        self._remaining_bytes: int | None = None
        #: Done when the socket has the last byte of the response; None before that byte is written.
        self._delivery: asyncio.Future[None] | None = None
        #: True if finish() has ended without an error.
        self._finished = False
        #: True after the headers have been written: an error response is no longer possible.
        self.headers_sent = False
        self.client_gone = False

    @property
    def closed(self) -> bool:
        """True if the connection has closed."""
        return self._connection.stream.closed()

    @property
    def delivered(self) -> bool:
        """True if the socket has taken the whole response.

        A client that has read all bytes of the stated length can close before finish() is called, and leaves nothing.
        """
        delivery = self._delivery
        return self._finished or (delivery is not None and delivery.done() and delivery.exception() is None)

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the response head, which is written together with the first bytes of the body.

        Args:
            status: Status code.
            reason: Reason phrase; replaced by the standard one if it cannot be sent (HTTP/2 has none).
            headers: Header names and values, already validated by wire/headers.py.
        """
        fields: dict[str, list[str]] = {}
        for name, value in headers:
            fields.setdefault(_normalize_header(name), []).append(value)
        if not (reason.isascii() and reason.isprintable() and reason):
            reason = responses.get(status, "Unknown")
        self._head = _Head(status, reason, fields)
        self._without_body |= status in _STATUSES_WITHOUT_BODY
        if not self._without_body and "Content-Length" in fields:
            self._remaining_bytes = int(",".join(fields["Content-Length"]))

    def send(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; empty data writes the head alone.  Return a future that is done when the socket has the bytes.

        Not a coroutine, because the frame of a waiting coroutine would keep `data` in memory for a slow client.

        Raises:
            StreamClosedError: the client has disconnected.
        """
        if self.client_gone or self.closed:
            raise StreamClosedError
        if self._without_body:
            data = b""
        if self._head is not None:
            write = self._write_head(data)
        else:
            write = self._connection.write(data)
        if self._remaining_bytes is not None:
            self._remaining_bytes -= len(data)
            if self._remaining_bytes == 0:
                self._note_last_byte()
        # Keep no finished future: the traceback of its error holds the frames that awaited it, which hold this writer.
        self._pending_write = None if write.done() else write
        return write

    async def finish(self, data: bytes) -> None:
        """Write the last bytes and end the response; set Content-Length if no byte was written before.

        Raises:
            StreamClosedError: the client disconnected before its socket took the last byte.
        """
        if self._head is not None and not self._without_body and "Content-Length" not in self._head.headers:
            self._head.headers["Content-Length"] = [str(len(data))]
        # Duplicated before the write: when it is done, Tornado may have closed the original.
        duplicate = duplicate_socket(self._connection.stream) if self._may_close_after_response() else None
        complete = False
        try:
            await self._write_last(data)
            complete = self._finished = True
        finally:
            # No finished future is kept: its error's traceback holds this frame, which holds this writer.
            self._pending_write = self._delivery = None
            if complete and self._close_delimited:
                self._connection.close()
            if duplicate is not None and complete and self._connection.stream.closed():
                close_lingering(duplicate)
            elif duplicate is not None:
                duplicate.close()

    def abort(self) -> None:
        """Close the connection without ending the response; a pending write raises StreamClosedError."""
        if self._close_delimited and not self._connection.stream.closed():
            # FIN would mark the end of a complete body; RST tells the client that it is cut.
            self._connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._connection.close()
        self.on_client_gone()

    def on_client_gone(self) -> None:
        """Called when the connection has closed; a pending write raises StreamClosedError."""
        self.client_gone = True
        write, self._pending_write = self._pending_write, None
        # HTTP1Connection drops its write future on close without resolving it: a relay would wait for ever.
        if write is not None and not write.done():
            write.set_exception(StreamClosedError())

    def _write_head(self, data: bytes) -> asyncio.Future[None]:
        """Write the head and the first bytes, as HTTP1Connection.write_headers() does."""
        assert self._head is not None
        head, connection = self._head, self._connection
        self._head = None
        self.headers_sent = True
        connection._response_start_line = ResponseStartLine("", head.status, head.reason)
        if self._http10 and not self._without_body and "Content-Length" not in head.headers:
            self._close_delimited = True
        self._set_framing(head.status, head.headers)
        future: asyncio.Future[None] = Future()
        connection._write_future = future
        if connection.stream.closed():
            future.set_exception(StreamClosedError())
            future.exception()  # marks it as retrieved: it may never be awaited
            return future
        connection._pending_write = connection.stream.write(
            head.encode() + (connection._format_chunk(data) if data else b"")
        )
        future_add_done_callback(connection._pending_write, connection._on_write_complete)
        return future

    def _set_framing(self, status: int, headers: dict[str, list[str]]) -> None:
        """Tell the connection where the body ends, and add the headers that tell the client (RFC 9112 section 6.3)."""
        connection, request = self._connection, self._request
        length = headers.get("Content-Length")
        chunked = request.version == "HTTP/1.1" and not self._without_body and length is None
        connection._chunking_output = chunked
        if request.method == "HEAD" or status == 304:
            connection._expected_content_remaining = 0
        else:
            connection._expected_content_remaining = None if length is None else int(",".join(length))
        if request.version == "HTTP/1.1" and connection._disconnect_on_finish:
            headers["Connection"] = ["close"]
        elif self._http10 and not self._close_delimited and self._asks_for("keep-alive"):
            headers["Connection"] = ["Keep-Alive"]
        if chunked:
            headers["Transfer-Encoding"] = ["chunked"]

    def _asks_for(self, option: str) -> bool:
        return self._request.headers.get("Connection", "").lower() == option

    def _may_close_after_response(self) -> bool:
        return self._http10 or self._asks_for("close")

    def _write_last(self, data: bytes) -> asyncio.Future[None]:
        """Write `data` and the end of the response; return a future that is done when the socket has both.

        HTTP1Connection's future is not enough: it does not cover the terminating chunk, and it hides the
        StreamClosedError of a client that has disconnected.
        """
        self.send(data)
        # A close callback would keep the handler in memory for as long as the connection is kept alive.
        self._connection.set_close_callback(None)
        self._connection.finish()
        if self._delivery is None:
            self._note_last_byte()
        assert self._delivery is not None
        self._pending_write = None if self._delivery.done() else self._delivery
        return self._delivery

    def _note_last_byte(self) -> None:
        """Set `_delivery`: the last byte of the response has been written."""
        stream = self._connection.stream
        if stream.writing():
            # An empty write is done after all writes before it, the terminating chunk included.
            self._delivery = stream.write(b"")
            return
        self._delivery = asyncio.get_running_loop().create_future()
        if stream.error is None:
            self._delivery.set_result(None)
        else:
            self._delivery.set_exception(StreamClosedError(stream.error))
            self._delivery.exception()  # marks it as retrieved: it may never be awaited
