"""A request as the parser of a connection makes it: its head, and its body as far as it has arrived."""

from __future__ import annotations

from functools import lru_cache

from tornado.httputil import HTTPHeaders, RequestStartLine, _normalize_header


@lru_cache(maxsize=1024)  # bounded, because clients choose the names
def _decode_name(name: bytes) -> tuple[str, str]:
    """Return the name of a header as Tornado spells it, and in lower case."""
    text = name.decode("latin-1")
    return _normalize_header(text), text.lower()


class RequestHeaders(HTTPHeaders):
    """The headers of a request, which llhttp has checked: they are stored without Tornado's checks.

    Attributes:
        pairs: Name and value of each line, in the order of the names.
        lines: The values of each header by its name in lower case.
    """

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._as_list: dict[str, list[str]] = {}
        self._combined_cache = {}
        self.lines: dict[str, list[str]] = {}
        for name, value in fields:
            spelled, lower = _decode_name(name)
            text = value.decode("latin-1").rstrip(" \t")
            if lower in self.lines:
                self.lines[lower].append(text)
            else:
                self._as_list[spelled] = self.lines[lower] = [text]
        self.pairs = [(name, value) for name, values in self._as_list.items() for value in values]

    def drop(self, keep: frozenset[str] = frozenset()) -> None:
        """Drop all headers, also for those who hold `pairs` or `lines`: a response can stream for hours.

        `keep` names those, in lower case, that stay in `pairs`.
        """
        self.pairs[:] = [pair for pair in self.pairs if pair[0].lower() in keep] if keep else ()
        self.lines.clear()
        self._as_list.clear()
        self._combined_cache.clear()

    @property
    def expects_continue(self) -> bool:
        """True if the client waits for 100-continue (RFC 9110 section 10.1.1: the expectation has no case)."""
        return ",".join(self.lines.get("expect", ())).lower() == "100-continue"


class IncomingRequest:
    """A request whose head has been parsed; its body is added as it arrives."""

    __slots__ = ("body", "chunked", "complete", "headers", "keep_alive", "missing_bytes", "start_line")

    def __init__(self, start_line: RequestStartLine, headers: RequestHeaders, *, keep_alive: bool) -> None:
        self.start_line = start_line
        self.headers = headers
        self.keep_alive = keep_alive
        self.chunked = "transfer-encoding" in headers.lines
        length = headers.lines.get("content-length")
        #: Bytes that a body of stated length still lacks.
        self.missing_bytes = int(length[0]) if length else 0
        #: Body bytes that have not been taken; the framing is removed.
        self.body = b""
        #: True if the end of the body has been parsed.
        self.complete = False

    def take_body(self) -> bytes:
        """Return the body bytes that have arrived since the last call."""
        body, self.body = self.body, b""
        return body
