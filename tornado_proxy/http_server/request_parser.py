"""Parses the requests of one connection with llhttp, the parser of Node.js, through httptools.

llhttp checks the syntax and the framing of messages.  This module adds the limits that it has not, rejects the few
things that it accepts and the server does not support, and turns its callbacks into IncomingRequest objects.  Of a
large body whose length llhttp has accepted, the rest is counted here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from tornado.httputil import _ABNF, HTTPInputError

from tornado_proxy.http_server.incoming_request import IncomingRequest, decode_fields
from tornado_proxy.http_server.request_target import make_origin_form

#: Size limit of a request's start line and headers; near the providers' own limits.
_MAX_HEAD_BYTES = 64 * 1024

#: Bytes of all chunk extensions and trailers of a body.  Same as the limit of the head: they carry the same kind of
#: data.
_MAX_IGNORED_BYTES = 64 * 1024

#: Bytes that are parsed at a time, but for a body.  A read of 256 KiB can hold ten thousand requests.
MIN_PIECE_BYTES = 16 * 1024

#: Missing bytes of a body from which on they are counted instead of parsed: llhttp's callback would copy them.
_MIN_COUNTED_BYTES = 64 * 1024

#: Characters of a Host that is kept: a name has at most 253 (RFC 1035 section 2.3.4), and a port.
_MAX_KEPT_HOST_CHARACTERS = 260

#: Fields of a query, as many as Tornado reads for its handlers.
_MAX_QUERY_FIELDS = 1000

#: Bytes that frame a chunk without extensions: its size of up to 16 digits, and two line ends.
_PLAIN_CHUNK_BYTES = 20

#: Method and target of a request line that llhttp rejects, as far as they can be read (RFC 9110 section 5.6.2).
_REQUEST_LINE = re.compile(rb"[\r\n]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +([^ \r\n]+)")

#: What llhttp says about the preface of HTTP/2.
_HTTP2_PREFACE = "Pause on PRI/Upgrade"
_VERSION_RULE = "the HTTP version must be 1.0 or 1.1"

#: Where Tornado's messages on malformed requests begin to repeat the client's bytes, which can hold a credential.
_REPEATED = re.compile(r"[:'\"%].*", re.DOTALL)

#: The type of a TLS record that carries a handshake (RFC 8446 section 5.1).  No HTTP method begins with it.
_TLS_HANDSHAKE = 0x16


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request is not served.

    Attributes:
        target: its target, as far as it is known; "/" if not.
        text: the rule that it breaks, without bytes of the client.
        head_too_large: True if its start line and headers exceed the limit.
        is_tls: True if it is a TLS handshake.
    """

    target: str
    text: str
    head_too_large: bool = False
    is_tls: bool = False


class _HeadTooLargeError(HTTPInputError):
    """The start line and the headers of a request exceed the limit."""

    def __init__(self) -> None:
        super().__init__(f"the request line and the headers are larger than {_MAX_HEAD_BYTES // 1024} KiB")


class RequestParser:
    """Turns the bytes of a connection into requests, in their order.

    Methods whose names begin with on_ are called by httptools.  Two of them are methods of lists: a body of many small
    chunks must not cost a Python call for each.
    """

    def __init__(self) -> None:
        #: Requests whose head has been parsed, in order; the server removes them.
        self.requests: list[IncomingRequest] = []
        #: Set when bytes could not be parsed; it belongs to the last request if that is incomplete.
        self.fault: Fault | None = None
        #: Bytes after a request to upgrade: of another protocol if the server agrees to it, else of the next request.
        self.held: bytearray | None = None
        #: True if the rest of a body of stated length is counted and not given to llhttp.
        self.counting = False
        self._url: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self.on_url = self._url.append
        self.on_body = self._pieces.append
        self._receiving: IncomingRequest | None = None
        #: A request to upgrade whose body comes after a second head, see _feed().
        self._reframed: IncomingRequest | None = None
        self._in_head = False
        self._head_bytes = self._ignored_bytes = 0
        #: True after the last request of the connection.
        self._ended = False
        #: The method of a request that llhttp has been given as a POST, see _parse_as_post().
        self._unknown_method: str | None = None
        self._parser = self._make_parser()

    @property
    def piece_bytes(self) -> int:
        """The number of bytes to feed at a time: those of a body, else so few that they hold few requests."""
        return max(MIN_PIECE_BYTES, self._receiving.missing_bytes if self._receiving is not None else 0)

    @property
    def counted_bytes(self) -> int:
        """The number of bytes that are missing of a body that is counted; 0 if none is."""
        return self._receiving.missing_bytes if self.counting and self._receiving is not None else 0

    @property
    def head_begun(self) -> bool:
        """True if bytes of the next request head have arrived."""
        return self._in_head and self._receiving is None

    @property
    def between_requests(self) -> bool:
        """True if all requests have been taken and the next one can be read by another parser."""
        begun = self._in_head or self.counting or self.requests or self.held is not None
        return not (begun or self._ended or self.fault is not None)

    def feed(self, data: bytes) -> None:
        """Parse bytes of the client; all faults end up in `fault`."""
        if self.held is not None:
            self.held += data
            return
        if self._ended or self.fault is not None:
            return
        if self.counting:
            self._count(data)
            return
        if self._receiving is None:
            self._head_bytes += len(data)
        try:
            self._feed(memoryview(data))
        except HttpParserError as error:
            if not self._parse_as_post(error, data):
                self._note(error, data)
        if self._receiving is not None:
            self._collect(self._receiving, len(data))
            self.counting = self._receiving.missing_bytes > _MIN_COUNTED_BYTES and not self._receiving.chunked
        elif self._head_bytes > _MAX_HEAD_BYTES:
            self._set_fault(_HeadTooLargeError())

    def _feed(self, data: memoryview) -> None:
        """Parse `data`, up to a request to upgrade to WebSocket.

        httptools takes the bytes after each request to upgrade for those of another protocol, and a body for a part of
        them.  Other upgrades are never agreed to, so the body follows, then the next request: a head that only frames
        the body makes llhttp continue there.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._reframed is None:
                    self.held = bytearray(data)
                    return
                self._parser.feed_data(_frame_body(self._reframed))
            else:
                return

    def _count(self, data: bytes) -> None:
        """Add `data` to the body; a new parser of llhttp reads what follows the last byte."""
        request = self._receiving
        assert request is not None, "its body is incomplete"
        body, rest = data[: request.missing_bytes], data[request.missing_bytes :]
        request.body = request.body + body if request.body else body
        self.count(len(body))
        if rest:
            self.feed(rest)

    def count(self, size: int) -> None:
        """Count `size` bytes of the body, at most `counted_bytes`, which its receiver has."""
        request = self._receiving
        assert request is not None, "its body is incomplete"
        request.missing_bytes -= size
        if not request.missing_bytes:
            self.counting = False
            self._parser = self._make_parser()
            self.on_message_complete()

    def take_held(self) -> bytes:
        """Return the bytes after a request to upgrade: they are of another protocol, or to be fed again."""
        held, self.held = self.held, None
        return bytes(held or b"")

    def close(self) -> None:
        """Break the cycle with httptools, whose parser refers to methods of this one."""
        del self._parser

    def on_message_begin(self) -> None:
        """Begin a head.

        Raises:
            HTTPInputError: no request may follow; _note() ignores it.
        """
        if self._ended:
            raise HTTPInputError("a request after the last one")
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; one after the head is a trailer, which is dropped with its request."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Make a request of the head.

        Raises:
            HTTPInputError: the server does not support it.
        """
        if self._reframed is not None:
            self._receiving, self._reframed = self._reframed, None
            self._fields.clear()
            self._url.clear()
            return
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._check_size()
        parser = self._parser
        version = parser.get_http_version()
        method = self._unknown_method or parser.get_method().decode("latin-1")
        request = IncomingRequest(method, self._take_target(), *decode_fields(self._fields), version=f"HTTP/{version}")
        _check_support(request)
        # After CONNECT, the connection would be a tunnel.
        last = method == "CONNECT" or self._unknown_method is not None
        request.keep_alive = not last and parser.should_keep_alive()
        if not last and parser.should_upgrade() and not _asks_for_websocket(request):
            self._reframed = request
        self._head_bytes = 0
        self._url.clear()
        self._fields.clear()
        self._receiving = request
        self.requests.append(request)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._reframed is not None:
            return
        request = self._receiving
        assert request is not None, "its head is complete"
        if self._pieces:
            self._collect(request, 0)
        request.complete = True
        self._fields.clear()
        self._ended = not request.keep_alive
        self._receiving = None
        self._in_head = False
        self._ignored_bytes = 0

    def _collect(self, request: IncomingRequest, arrived_bytes: int) -> None:
        """Add the parsed pieces to the body of `request`, and limit the bytes that are no body."""
        pieces = self._pieces
        if request.chunked:
            framed_bytes = sum(map(len, pieces)) + _PLAIN_CHUNK_BYTES * len(pieces)
            self._ignored_bytes += max(0, arrived_bytes - framed_bytes)
            if self._ignored_bytes > _MAX_IGNORED_BYTES:
                self._set_fault(HTTPInputError("chunk extensions and trailers too large"))
        if pieces:
            request.missing_bytes -= sum(map(len, pieces))
            request.body = pieces[0] if len(pieces) == 1 and not request.body else b"".join((request.body, *pieces))
            pieces.clear()

    def _check_size(self) -> None:
        """Check the exact size of a head that has arrived together with other bytes."""
        size = sum(map(len, self._url)) + sum(len(name) + len(value) + 4 for name, value in self._fields)
        if size > _MAX_HEAD_BYTES:
            raise _HeadTooLargeError

    def _take_target(self) -> str:
        target = b"".join(self._url).decode("latin-1")
        return target if target.startswith("/") else make_origin_form(target)

    def _note(self, error: HttpParserError, data: bytes) -> None:
        """Keep the fault that llhttp or on_headers_complete() has found."""
        if self._ended:
            return  # bytes after the last request of the connection
        cause = error.__context__
        if isinstance(error, HttpParserCallbackError) and cause is not None:
            if not isinstance(cause, HTTPInputError):
                raise cause
            self._set_fault(cause, data)
        else:
            self._set_fault(error, data)

    def _make_parser(self) -> HttpRequestParser:
        parser = HttpRequestParser(self)
        # RFC 9112 section 7.1.1: white space before a semicolon is bad, and must be accepted.
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        return parser

    def _parse_as_post(self, error: HttpParserError, data: bytes) -> bool:
        """Parse a request whose method llhttp rejects; return False if that is not its fault.

        llhttp knows the registered methods only.  The request is the last of its connection, so that it makes no
        difference where its body ends.
        """
        line = _REQUEST_LINE.match(data)
        if line is None or self._head_bytes != len(data) or self._unknown_method is not None:
            return False
        if not (isinstance(error, HttpParserInvalidMethodError) or line[1] == b"CONNECT"):
            return False
        self._unknown_method = line[1].decode("latin-1")
        self._url.clear()
        self._fields.clear()
        self._parser = self._make_parser()
        try:
            self._feed(memoryview(b"POST" + data[line.end(1) :]))
        except HttpParserError as second:
            self._note(second, data)
        return True

    def _set_fault(self, error: Exception, data: bytes = b"") -> None:
        if self._receiving is not None:
            self.fault = Fault(self._receiving.target, str(error))
            return
        line = _REQUEST_LINE.match(data)
        is_tls = self._head_bytes == len(data) and data[:1] == bytes([_TLS_HANDSHAKE])
        target = self._take_target()
        if target == "/" and line is not None:
            target = make_origin_form(line[2].decode("latin-1"))
        text = _VERSION_RULE if str(error) == _HTTP2_PREFACE else str(error)
        self.fault = Fault(target, text, isinstance(error, _HeadTooLargeError), is_tls)


def describe(error: HTTPInputError) -> str:
    """Return the text of Tornado's error without bytes of the client."""
    return _REPEATED.sub("", str(error)).strip()


def _check_support(request: IncomingRequest) -> None:
    """Raise HTTPInputError for a request that llhttp accepts and the server does not support."""
    if request.version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HTTPInputError(_VERSION_RULE)
    if request.chunked:
        if request.version == "HTTP/1.0":
            raise HTTPInputError("Transfer-Encoding in an HTTP/1.0 request")  # RFC 9112 section 6.1
        if [coding.lower() for coding in request.lines["transfer-encoding"]] != ["chunked"]:
            raise HTTPInputError("the Transfer-Encoding must be chunked")
    if request.target.count("&") >= _MAX_QUERY_FIELDS:
        raise HTTPInputError("Invalid query string: too many fields")
    hosts = request.lines.get("host")
    if hosts is None:
        if request.version == "HTTP/1.1":
            raise HTTPInputError("Missing Host header")  # RFC 9112 section 3.2
    elif len(hosts) > 1 or not _is_host(hosts[0]):
        raise HTTPInputError("Invalid Host header" if len(hosts) == 1 else "Multiple host headers not allowed")


def _is_host(text: str) -> bool:
    """Return True for the value of a Host header; a comma would join two of them (RFC 9110 section 5.3)."""
    check = _is_host_text if len(text) <= _MAX_KEPT_HOST_CHARACTERS else _is_host_text.__wrapped__
    return check(text)


@lru_cache(maxsize=256)  # bounded, because clients choose the text; a server has few names, and the pattern is slow
def _is_host_text(text: str) -> bool:
    return "," not in text and _ABNF.host.fullmatch(text) is not None


def _asks_for_websocket(request: IncomingRequest) -> bool:
    """Return True for a request to upgrade to WebSocket.

    Raises:
        HTTPInputError: it has a body, which would be taken for frames.
    """
    if request.header("upgrade").lower() != "websocket":
        return False
    if request.chunked or request.stated_bytes:
        raise HTTPInputError("a body in a request to upgrade to WebSocket")
    return True


def _frame_body(request: IncomingRequest) -> bytes:
    """Return a head that frames the body of `request`."""
    framing = "Transfer-Encoding: chunked" if request.chunked else f"Content-Length: {request.stated_bytes}"
    end = "" if request.keep_alive else "Connection: close\r\n"
    return f"POST / HTTP/1.1\r\n{framing}\r\n{end}\r\n".encode("latin-1")
