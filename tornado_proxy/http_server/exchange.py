"""One request on a connection and its response.

    bytes ──> incoming ──> receiver: headers_received, data_received, finish
                                         │
    bytes <── begin_response, send, end <┘

The response is a head, which leaves together with the first bytes of the body, then bytes as they come.  A receiver
that does not end its response calls abort(), so that it never looks complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import lru_cache
from http.client import responses
from operator import itemgetter
from typing import Protocol

from tornado.httputil import HTTPOutputError, _normalize_header
from tornado.iostream import StreamClosedError

from tornado_proxy.http_server.client_transport import ClientTransport
from tornado_proxy.http_server.incoming_request import IncomingRequest, Pairs
from tornado_proxy.http_server.upgraded_connection import UpgradedConnection
from tornado_proxy.wire.headers import MAX_CACHED_NAMES

_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"

#: Statuses whose responses have no body and no length (RFC 9110 section 6.4.1).
_STATUSES_WITHOUT_BODY = frozenset({204, 304})

_SWITCHING_PROTOCOLS = 101

_get_name, _get_value = itemgetter(0), itemgetter(1)


class BodyMemory(Protocol):
    """Collects a body that is read into it."""

    def get_buffer(self, limit: int) -> memoryview:
        """Return memory for the next bytes, at least one and at most `limit`; drop it before the next call."""

    def advance(self, size: int) -> None:
        """Add the first `size` bytes of that memory to the body."""


class RequestReceiver(Protocol):
    """Receives one request and responds to it."""

    def headers_received(self) -> Awaitable[None] | None:
        """Called when the head is complete; return an awaitable that delays the body, None if nothing does."""

    def data_received(self, chunk: bytes) -> None:
        """Called with each chunk of the body."""

    def find_memory(self) -> BodyMemory | None:
        """Return memory for the next bytes of a large body, None if data_received() takes them.

        Called before each read.  The memory is still in use when body_read() and finish() are called.
        """

    def body_read(self, size: int) -> None:
        """Called when `size` bytes of the body have been read into that memory."""

    def finish(self) -> None:
        """Called when the request is complete."""

    def on_connection_close(self) -> None:
        """Called when the client disconnects before the request is complete."""

    def client_left(self) -> None:
        """Called when the client disconnects after its request and before the end of the response."""


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


class Exchange:
    """Passes a request to its receiver and writes the response.

    send() and end() raise StreamClosedError if the client has disconnected.

    Args:
        transport: The transport of the connection.
        incoming: The request.
        owner: The connection.
    """

    def __init__(self, transport: ClientTransport, incoming: IncomingRequest, owner: ExchangeOwner) -> None:
        self.transport = transport
        self.incoming = incoming
        self._owner = owner
        #: Until the request and the response have ended.
        self._receiver: RequestReceiver | None = None
        #: True if the receiver waits before it takes the body.
        self.preparing = False
        #: True if the receiver has the whole request, or has heard that the client has left.
        self.received = False
        #: Status, reason and headers of the response, until they are written.
        self._head: tuple[int, str, Pairs] | None = None
        #: True after the head of the response has been written: an error response is no longer possible.
        self.response_begun = False
        #: True after the end of the response has been written.
        self.response_ended = False
        self._without_body = incoming.method == "HEAD"
        self._switching = False
        self._chunked = False
        #: True if only the end of the connection marks the end of the body: HTTP/1.0 has no chunks.
        self._close_delimited = False
        #: Body bytes up to the stated Content-Length; None without one.
        self._remaining_bytes: int | None = None
        #: Done when the socket has the last byte of the response; None before that byte is written.
        self._last_byte: asyncio.Future[None] | None = None

    # The request.

    def begin(self, application: FindReceiver) -> Awaitable[None] | None:
        """Pass the head to the receiver; return the awaitable that delays the body, if any.

        Raises:
            HTTPInputError: the head is malformed, or states a body that is too large.
        """
        context = self.transport.context
        self.incoming.receive(context.remote_ip, context.protocol)
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
            receiver.finish()

    def find_memory(self) -> BodyMemory | None:
        """Return the receiver's memory for the next bytes of the body, None if it has none or is not ready."""
        if self.received or self.preparing or self._receiver is None or self.incoming.body:
            return None
        return self._receiver.find_memory()

    def body_read(self, size: int) -> None:
        """Tell the receiver that `size` bytes have been read into its memory."""
        if self._receiver is not None:
            self._receiver.body_read(size)

    def pause_body(self) -> None:
        """Read nothing more of the request until resume_body()."""
        self.transport.pause_reading()

    def resume_body(self) -> None:
        """Read the request again."""
        self.transport.resume_reading()

    def client_left(self) -> None:
        """Tell the receiver that the connection has closed."""
        receiver, self._receiver = self._receiver, None
        was_received, self.received = self.received, True
        if receiver is None:
            return
        if was_received:
            receiver.client_left()
        else:
            receiver.on_connection_close()

    # The response.

    @property
    def delivered(self) -> bool:
        """True if the socket has taken the whole response.

        A client that has read all bytes of the stated length can close before end() is called, and leaves nothing.
        """
        last = self._last_byte
        return last is not None and last.done() and not last.cancelled() and last.exception() is None

    def begin_response(self, status: int, reason: str, headers: Pairs, *, spelled: bool = False) -> None:
        """Set the response head, which is written together with the first bytes of the body.

        Args:
            status: Status code.
            reason: Reason phrase; replaced by the standard one if it cannot be sent (HTTP/2 has none).
            headers: Header names and values, already validated by wire/headers.py.
            spelled: True if the names are sent as they are; else they are spelled as Tornado spells them.
        """
        if not (reason.isascii() and reason.isprintable() and reason):
            reason = responses.get(status, "Unknown")
        self._without_body |= status in _STATUSES_WITHOUT_BODY or status < 200
        self._head = status, reason, headers if spelled else _spell_names(headers)

    def send(self, data: bytes) -> asyncio.Future[None]:
        """Write `data`; empty data writes the head alone.  Return a future that is done when the socket has the bytes.

        Not a coroutine, because the frame of a waiting coroutine would keep `data` in memory for a slow client.

        Raises:
            StreamClosedError: the client has disconnected.
            ValueError: a header contains a line end: it would begin another header.
            HTTPOutputError: the body is longer than its Content-Length; the connection is closed.
        """
        if self.transport.closed:
            raise StreamClosedError
        framed = self._take_head() + self._frame(data) if self._head is not None else self._frame(data)
        written = self.transport.write(framed)
        if self._remaining_bytes == 0:
            self._last_byte = written
        return written

    def end(self, data: bytes) -> asyncio.Future[None]:
        """Write the last bytes and end the response; set Content-Length if no byte was written before.

        Return a future that is done when the socket has taken them.

        Raises:
            StreamClosedError: the client has disconnected.
            ValueError: as send().
            HTTPOutputError: the body is not as long as its Content-Length; the connection is closed.
        """
        if self.transport.closed:
            raise StreamClosedError
        head = b"" if self._head is None else self._take_head(length=len(data))
        last = self._frame(data)
        if self._remaining_bytes:
            self.abort()
            raise HTTPOutputError(f"{self._remaining_bytes} bytes of the response are missing")
        if self._chunked:
            last += b"0\r\n\r\n"
        self.response_ended = True
        self._release_receiver()
        written = self.transport.write(head + last) if head or last else self.transport.drained
        if written.done() and written.exception() is not None:
            return written  # not kept, as in _on_written()
        self._last_byte = written
        if not self._switching:
            if written.done():
                self._owner.end_exchange(self)
            else:
                written.add_done_callback(self._on_written)
        return written

    def abort(self) -> None:
        """Close the connection without ending the response; a pending write raises StreamClosedError.

        A receiver that has the whole request is not told that the client has left.
        """
        self._release_receiver()
        # FIN would mark the end of a complete body; RST tells the client that it is cut.
        self.transport.abort(reset=self._close_delimited)

    def close(self) -> None:
        """Close the connection at once; the receiver is told as by abort()."""
        self._release_receiver()
        self.transport.abort()

    def upgrade(self) -> UpgradedConnection:
        """Hand the connection over to another protocol, after the 101 response.

        Raises:
            StreamClosedError: the client has disconnected before.
        """
        if not self._switching:
            raise StreamClosedError
        return self._owner.upgrade()

    def _release_receiver(self) -> None:
        """Break the cycle with the receiver, unless it waits for the end of the request."""
        if self.received:
            self._receiver = None

    def _on_written(self, written: asyncio.Future[None]) -> None:
        if not written.cancelled() and written.exception() is None:
            self._owner.end_exchange(self)
        else:
            # The traceback of its error holds the frames that await it, which hold this exchange.
            self._last_byte = None

    def _take_head(self, length: int | None = None) -> bytes:
        """Return the bytes of the response head; `length` is that of the body if it is complete."""
        assert self._head is not None
        (status, reason, headers), self._head = self._head, None
        self._choose_framing(status, headers, length)
        text = "\r\n".join((f"HTTP/1.1 {status} {reason}", *map(": ".join, headers)))
        if not text.count("\r") == text.count("\n") == len(headers):
            raise ValueError("a header of the response contains a line end")
        self.response_begun = True
        return f"{text}\r\n\r\n".encode("latin-1")

    def _choose_framing(self, status: int, headers: Pairs, length: int | None) -> None:
        """Choose where the body ends (RFC 9112 section 6.3), and add the headers that say so."""
        stated = dict(headers).get("Content-Length") or _find_length(headers)
        is_http_1_1 = self.incoming.version == "HTTP/1.1"
        if self._without_body:
            self._remaining_bytes = 0
        elif stated is not None:
            self._remaining_bytes = int(stated)
        elif length is not None:
            self._remaining_bytes = length
            headers.append(("Content-Length", str(length)))
        elif not is_http_1_1:
            self._close_delimited = True
            self.incoming.keep_alive = False
        if status == _SWITCHING_PROTOCOLS:
            self._switching = True
        elif not is_http_1_1:
            if self.incoming.keep_alive:
                headers.append(("Connection", "Keep-Alive"))
        elif not (self.incoming.keep_alive and self.received):
            headers.append(("Connection", "close"))
        if self._remaining_bytes is None and is_http_1_1:
            self._chunked = True
            headers.append(("Transfer-Encoding", "chunked"))
            self._owner.rest()

    def _frame(self, data: bytes) -> bytes:
        if self._without_body:
            return b""
        if self._remaining_bytes is not None:
            self._remaining_bytes -= len(data)
            if self._remaining_bytes < 0:
                self.abort()
                raise HTTPOutputError("the response is longer than its Content-Length")
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data


def _find_length(headers: Pairs) -> str | None:
    """Return the value of Content-Length in any spelling, None if it is missing; HTTP/2 has names in lower case."""
    if "content-length" in map(str.lower, map(_get_name, headers)):
        return next(value for name, value in headers if name.lower() == "content-length")
    return None


def _spell_names(headers: Pairs) -> Pairs:
    """Return the headers with their names as Tornado spells them, the lines of one name after each other."""
    names = tuple(map(_get_name, headers))
    plan = _plan_names if len(names) <= MAX_CACHED_NAMES else _plan_names.__wrapped__
    spelled_names, order = plan(names)
    spelled = list(zip(spelled_names, map(_get_value, headers), strict=True))
    return [spelled[at] for at in order] if order else spelled


@lru_cache(maxsize=128)  # bounded, because providers choose the names
def _plan_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names as Tornado spells them, and the order of the lines if it changes."""
    spelled = tuple(map(_normalize_header, names))
    first = {name: at for at, name in reversed(list(enumerate(spelled)))}
    order = tuple(sorted(range(len(spelled)), key=lambda at: first[spelled[at]]))
    return spelled, order if order != tuple(range(len(spelled))) else ()
