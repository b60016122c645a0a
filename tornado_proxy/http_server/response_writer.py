"""One relayed answer on the client's connection: the provider's head, then its bytes as they come.

It goes past RequestHandler.write, flush and finish, which gather a page, make an ETag and run output transforms; what a
relay needs of them is below.  Framing stays Tornado's (HTTP1Connection).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http.client import responses

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import StreamClosedError

from tornado_proxy.http_server.lingering_close import hold, linger

#: Statuses whose answers have no body, and so no length (RFC 9110 section 6.4.1).
_WITHOUT_BODY = frozenset({204, 304})

#: For SO_LINGER: close() resets the connection.  An end by FIN would look like the end of an answer without a length.
_RESET = struct.pack("ii", 1, 0)


class ResponseWriter:
    """begin() once, send() any number of times, finish() or cut().  One write at a time, or Tornado loses the first.

    What send() gives, and finish(), wait until the socket has taken the bytes, and raise StreamClosedError when the
    client has gone.
    """

    __slots__ = ("_bodyless", "_connection", "_ends_by_close", "_head", "_old", "_request", "_unsent", "begun", "gone")

    def __init__(self, request: HTTPServerRequest) -> None:
        assert isinstance(request.connection, HTTP1Connection)
        self._connection = request.connection
        self._request = request
        self._old = request.version == "HTTP/1.0"
        self._bodyless = request.method == "HEAD"
        #: Whether nothing but the connection's end tells where the body ends: no length, and no chunks in HTTP/1.0.
        self._ends_by_close = False
        self._head: tuple[ResponseStartLine, HTTPHeaders] | None = None
        self._unsent: asyncio.Future[None] | None = None
        #: Whether the head has left: what follows can only be the rest of this answer.
        self.begun = False
        self.gone = False

    @property
    def closed(self) -> bool:
        """Whether the connection has closed."""
        return self._connection.stream.closed()

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the head, which leaves with the first bytes.  `headers` are well formed already (wire/headers.py)."""
        fields = HTTPHeaders()
        for name, value in headers:
            if name in fields:
                fields.add(name, value)
            else:
                fields[name] = value
        if not (reason.isascii() and reason.isprintable() and reason):
            reason = responses.get(status, "Unknown")
        self._head = ResponseStartLine("", status, reason), fields
        self._bodyless |= status in _WITHOUT_BODY

    def send(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; an empty one sends the head alone.  No frame that waits holds the data."""
        if self.gone:
            raise StreamClosedError
        if self._bodyless:
            data = b""
        if self._head is not None:
            start, fields = self._head
            self._head = None
            self.begun = True
            if self._old and not self._bodyless and "Content-Length" not in fields:
                self._ends_by_close = True
                self._request.headers.pop("Connection", None)  # else Tornado promises to keep the connection
            unsent = self._connection.write_headers(start, fields, data)
        else:
            unsent = self._connection.write(data)
        # Not one that has ended: with its error it would keep the frames that wait for it, and they this answer.
        self._unsent = None if unsent.done() else unsent
        return unsent

    async def finish(self, data: bytes) -> None:
        """Write the last bytes and end the answer.  Where nothing was sent before, its length is told."""
        if self._head is not None and not self._bodyless and "Content-Length" not in self._head[1]:
            self._head[1]["Content-Length"] = str(len(data))
        held = hold(self._connection.stream) if self._may_close() else None
        whole = False
        try:
            await self._write_last(data)
            whole = True
        finally:
            self._unsent = None
            if whole and self._ends_by_close:
                self._connection.close()
            if held is not None and whole and self._connection.stream.closed():
                linger(held)
            elif held is not None:
                held.close()

    def cut(self) -> None:
        """Close the connection in the middle of the answer.  A write that waits ends as if the client had gone."""
        if self._ends_by_close and not self._connection.stream.closed():
            self._connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._connection.close()
        self.client_left()

    def client_left(self) -> None:
        """The connection has closed.  Tornado drops the future of a write that waits, so it is ended here."""
        self.gone = True
        unsent, self._unsent = self._unsent, None
        if unsent is not None and not unsent.done():
            unsent.set_exception(StreamClosedError())

    def _may_close(self) -> bool:
        """Whether this may be the last answer of its connection."""
        return self._old or self._request.headers.get("Connection", "").lower() == "close"

    def _write_last(self, data: bytes) -> asyncio.Future[None]:
        """What Tornado gives for `data` says nothing of the end behind it, and nothing of a client that left before."""
        unsent = self.send(data)
        self._connection.set_close_callback(None)
        self._connection.finish()
        stream = self._connection.stream
        if stream.writing():
            self._unsent = unsent = stream.write(b"")
        elif stream.error is not None:
            raise StreamClosedError(stream.error)
        return unsent
