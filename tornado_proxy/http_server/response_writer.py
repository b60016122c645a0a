"""Writes one relayed response to the client's connection: the head, then body bytes as they arrive.

It bypasses RequestHandler.write, flush and finish, which buffer a page, compute an ETag and run output transforms.
"""

from __future__ import annotations

import asyncio
from http.client import responses

from tornado.httputil import _normalize_header
from tornado.iostream import StreamClosedError

from tornado_proxy.http_server.exchange import Exchange, Fields

#: Statuses whose responses have no body and no length (RFC 9110 section 6.4.1).
_STATUSES_WITHOUT_BODY = frozenset({204, 304})


class ResponseWriter:
    """Writes a response with begin() once, send() any number of times, then finish() or abort().

    send() and finish() raise StreamClosedError if the client has disconnected.
    """

    __slots__ = ("_exchange", "_finished", "_head", "_last_byte", "_transport", "_without_body", "client_gone")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._transport = exchange.transport
        self._without_body = exchange.incoming.method == "HEAD"
        #: Status, reason and headers, until they are written.
        self._head: tuple[int, str, Fields] | None = None
        #: Done when the socket has the last byte of a response with a length; None before that byte is written.
        self._last_byte: asyncio.Future[None] | None = None
        #: True if finish() has ended without an error.
        self._finished = False
        self.client_gone = False

    @property
    def headers_sent(self) -> bool:
        """True after the headers have been written: an error response is no longer possible."""
        return self._exchange.response_begun

    @property
    def ended(self) -> bool:
        """True after the end of the response has been written."""
        return self._exchange.response_ended

    @property
    def closed(self) -> bool:
        """True if the connection has closed."""
        return self._transport.closed

    @property
    def delivered(self) -> bool:
        """True if the socket has taken the whole response.

        A client that has read all bytes of the stated length can close before finish() is called, and leaves nothing.
        """
        last = self._last_byte
        taken = last is not None and last.done() and not last.cancelled() and last.exception() is None
        return self._finished or taken

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the response head, which is written together with the first bytes of the body.

        Args:
            status: Status code.
            reason: Reason phrase; replaced by the standard one if it cannot be sent (HTTP/2 has none).
            headers: Header names and values, already validated by wire/headers.py.
        """
        fields: Fields = {}
        for name, value in headers:
            spelled = _normalize_header(name)
            if spelled in fields:
                fields[spelled].append(value)
            else:
                fields[spelled] = [value]
        if not (reason.isascii() and reason.isprintable() and reason):
            reason = responses.get(status, "Unknown")
        self._head = status, reason, fields
        self._without_body |= status in _STATUSES_WITHOUT_BODY

    def send(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; empty data writes the head alone.  Return a future that is done when the socket has the bytes.

        Not a coroutine, because the frame of a waiting coroutine would keep `data` in memory for a slow client.

        Raises:
            StreamClosedError: the client has disconnected.
        """
        if self.client_gone or self._transport.closed:
            raise StreamClosedError
        if self._without_body:
            data = b""
        if self._head is not None:
            head, self._head = self._head, None
            written = self._exchange.start_response(*head, data)
        else:
            written = self._exchange.write(data)
        if self._exchange.remaining_bytes == 0:
            self._last_byte = written
        return written

    async def finish(self, data: bytes) -> None:
        """Write the last bytes and end the response, and wait until the socket has taken them.

        Raises:
            StreamClosedError: the client disconnected before its socket took the last byte.
        """
        await self.end(data)
        self._finished = True

    def end(self, data: bytes) -> asyncio.Future[None]:
        """Write the last bytes and end the response; set Content-Length if no byte was written before.

        Return a future that is done when the socket has taken them.

        Raises:
            StreamClosedError: the client has disconnected.
        """
        if self._head is not None:
            fields = self._head[2]
            if not self._without_body and "Content-Length" not in fields:
                fields["Content-Length"] = [str(len(data))]
            self.send(data)
            data = b""
        elif self.client_gone or self._transport.closed:
            raise StreamClosedError
        return self._exchange.end_response(b"" if self._without_body else data)

    def abort(self) -> None:
        """Close the connection without ending the response; a pending write raises StreamClosedError."""
        self._exchange.reset()
        self.client_gone = True

    def on_client_gone(self) -> None:
        """Called when the connection has closed; a pending write raises StreamClosedError."""
        self.client_gone = True
