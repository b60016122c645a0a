"""A request of a client, which everything from the parser to the record reads: its head, and its body as it arrives."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from tornado.httputil import _normalize_header

#: Name and value of each header line.
Pairs = list[tuple[str, str]]


#: Bytes of the longest header name that is kept: those of clients are shorter, and a name may have 64 KiB.
_MAX_KEPT_NAME_BYTES = 64


@lru_cache(maxsize=1024)  # bounded, because clients choose the names
def _decode_short_name(name: bytes) -> tuple[str, str]:
    return _decode_name(name)


def _decode_name(name: bytes) -> tuple[str, str]:
    """Return the name of a header as Tornado spells it, and in lower case."""
    text = name.decode("latin-1")
    return _normalize_header.__wrapped__(text), text.lower()


class IncomingRequest:
    """A request whose head has been parsed; its body is added as it arrives.

    Attributes:
        method: The method.
        target: The raw target in origin form: path and query.
        headers: Name and value of each header line, in the order of the names; they are spelled as Tornado spells them.
        lines: The values of each header by its name in lower case.
        version: "HTTP/1.1" or "HTTP/1.0".
        received_at: When the server began to serve it, aware UTC.
        peer: The address of the connection's other end, "" if it has none.
        scheme: That of the connection, http or https.
        keep_alive: True if the connection may take another request.
        chunked: True if the body comes in chunks.
        stated_bytes: The Content-Length, 0 without one; llhttp has checked it.
        missing_bytes: Bytes that a body of stated length still lacks.
        body: Body bytes that have not been taken; the framing is removed.
        complete: True if the end of the body has been parsed.
        token: The credential among the headers, in plain text as there; "" until it has been found.
    """

    __slots__ = (
        "body", "chunked", "complete", "headers", "keep_alive", "lines", "method", "missing_bytes", "peer",
        "received_at", "scheme", "stated_bytes", "target", "token", "version",
    )  # fmt: skip

    def __init__(
        self, method: str, target: str, headers: Pairs, lines: dict[str, list[str]], *, version: str = "HTTP/1.1"
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.lines = lines
        self.version = version
        self.peer = ""
        self.scheme = "http"
        self.keep_alive = True
        self.chunked = "transfer-encoding" in lines
        length = lines.get("content-length")
        self.stated_bytes = self.missing_bytes = int(length[0]) if length else 0
        self.body = b""
        self.complete = False
        self.token = ""

    def receive(self, peer: str, scheme: str) -> None:
        """Note the time, and the connection, when the server begins to serve the request."""
        self.received_at = datetime.now(UTC)
        self.peer = peer
        self.scheme = scheme

    def header(self, name: str) -> str:
        """Return the value of header `name` (lower case), several lines joined by commas, "" if missing."""
        return ",".join(self.lines.get(name, ()))

    def drop_headers(self, keep: frozenset[str] = frozenset()) -> None:
        """Drop the headers, except those in `headers` that `keep` names: a response can stream for hours.

        The token is kept with them.
        """
        if keep:
            self.headers = [pair for pair in self.headers if pair[0].lower() in keep]
        else:
            self.headers, self.token = [], ""
        self.lines = {}

    @property
    def expects_continue(self) -> bool:
        """True if the client waits for 100-continue (RFC 9110 section 10.1.1: the expectation has no case)."""
        return "expect" in self.lines and self.header("expect").lower() == "100-continue"


def decode_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[Pairs, dict[str, list[str]]]:
    """Return the headers of a request, and their values by name, from fields that llhttp has checked."""
    headers: Pairs = []
    lines: dict[str, list[str]] = {}
    for name, value in fields:
        decode = _decode_short_name if len(name) <= _MAX_KEPT_NAME_BYTES else _decode_name
        spelled, lower = decode(name)
        text = value.decode("latin-1").rstrip(" \t")
        headers.append((spelled, text))
        if lower in lines:
            lines[lower].append(text)
        else:
            lines[lower] = [text]
    if len(lines) < len(headers):
        order = {name: at for at, name in enumerate(lines)}
        headers.sort(key=lambda pair: order[pair[0].lower()])  # the lines of one name keep their order
    return headers, lines
