"""HTTP requests to a provider, and the heads of its responses."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.http.streamed_payload import StreamedPayload

#: The characters that begin a folded header line (RFC 9112 section 5.2).
_BLANKS = (" ", "\t")
#: Digits from which a Content-Length is no number that a body can have.
_MAX_LENGTH_DIGITS = 20
_STATUS = re.compile("[1-5][0-9][0-9]")


class Payload:
    """A request body, read in pieces by libcurl and dropped as soon as the provider responds.

    Otherwise a prompt of a megabyte would stay in memory for as long as its response streams.
    """

    __slots__ = ("_pieces", "_position", "on_drop", "size")

    #: A body that is sent while it arrives (upstream/http/streamed_payload.py) waits, and withholds its end.
    is_waiting = is_withheld = False
    read_at = 0.0

    def __init__(self, *pieces: bytes | memoryview) -> None:
        self._pieces: tuple[memoryview, ...] = tuple(map(memoryview, pieces))
        self._position = 0
        self.size = sum(map(len, self._pieces))
        #: Called once when the bytes have been dropped.
        self.on_drop: Callable[[], None] | None = None

    def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`; b"" at the end."""
        start = self._position
        for piece in self._pieces:
            if start < len(piece):
                data = bytes(piece[start : start + limit])
                self._position += len(data)
                return data
            start -= len(piece)
        return b""

    def rewind(self, position: int) -> bool:
        """Continue at byte `position`, because the request is sent again on a new connection; return True."""
        self._position = position
        return True

    def copy(self) -> Payload:
        """Return the same body, to be sent once more; dropping one does not drop the other."""
        return Payload(*self._pieces)

    def drop(self) -> None:
        """Drop the bytes: a request that has a response is never sent again."""
        self._pieces = ()
        if self.on_drop is not None:
            on_drop, self.on_drop = self.on_drop, None
            on_drop()


class UpstreamRequest(msgspec.Struct, frozen=True):
    """An HTTP request to a provider.

    Attributes:
        url: Complete URL, http or https.
        headers: Headers without secrets.
        key_headers: Headers with the provider key; never logged.
        connect_timeout_s: Seconds until the connection must exist, name lookup and TLS handshake included.
        idle_timeout_s: Seconds without a byte from the provider after which the exchange ends.
        ca_file: PEM file of the trusted authorities; None for certifi's.
        public_only: True if the URL may lead to public addresses only.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    key_headers: tuple[tuple[str, Secret], ...]
    body: Payload | StreamedPayload | None
    connect_timeout_s: float
    idle_timeout_s: float
    ca_file: str | None = None
    public_only: bool = False

    @property
    def origin(self) -> str:
        """The scheme, host and port of `url`, for example "https://api.openai.com"."""
        return self.url[: self.url.find("/", len("https://"))]

    @property
    def may_be_http2(self) -> bool:
        """True if the provider may choose HTTP/2, which is negotiated over TLS only."""
        return self.url.startswith("https:")

    def drop(self) -> None:
        """Drop the head and the body, for all who hold the request: its response can stream for hours."""
        for name, nothing in (("url", ""), ("headers", ()), ("key_headers", ()), ("body", None)):
            msgspec.structs.force_setattr(self, name, nothing)


class UpstreamResponseHead(msgspec.Struct, frozen=True):
    """Status line and headers of a response; header names as the provider wrote them, values decoded as Latin-1.

    Make one with make_response_head().

    Attributes:
        fields: The first value of each header, by its name in lower case: a relay asks for seven of them.
        declared_length: The Content-Length in bytes; None if it is missing or no number.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    fields: dict[str, str]
    declared_length: int | None


def make_response_head(status: int, reason: str, headers: tuple[tuple[str, str], ...]) -> UpstreamResponseHead:
    """Return the head of a response with these headers."""
    fields = {name.lower(): value for name, value in reversed(headers)}
    length = fields.get("content-length")
    is_number = length is not None and length.isascii() and length.isdigit() and len(length) < _MAX_LENGTH_DIGITS
    return UpstreamResponseHead(status, reason, headers, fields, int(length) if length and is_number else None)


def parse_response_head(lines: list[bytes]) -> UpstreamResponseHead | None:
    """Return the head in `lines` (status line first), or None if the status line is invalid.

    Not Tornado's parse_response_start_line, which rejects `HTTP/2 200`: HTTP/2 has no reason phrase.  A folded header
    line is joined to the line before it.
    """
    if not lines:
        return None
    # Split at line feeds only: str.splitlines() also splits at U+0085, a valid byte of a Latin-1 header value.
    status_line, *header_lines = b"".join(lines).decode("latin-1").rstrip().split("\n")
    # A line that begins with a blank sorts before all names: to search the whole text for one takes twice as long.
    if header_lines and min(header_lines) < "!":
        header_lines = _unfold(header_lines)
    parts = status_line.strip().split(" ", 2)
    # RFC 9110 section 15: three digits, 100 to 599.
    if len(parts) < 2 or _STATUS.fullmatch(parts[1]) is None:
        return None
    fields = [line.partition(":") for line in header_lines]
    headers = tuple([(name.strip(), value.strip()) for name, colon, value in fields if colon])
    return make_response_head(int(parts[1]), parts[2] if len(parts) == 3 else "", headers)


def _unfold(lines: list[str]) -> list[str]:
    unfolded: list[str] = []
    for line in lines:
        if line[:1] in _BLANKS and unfolded:
            unfolded[-1] = f"{unfolded[-1].rstrip()} {line.strip()}"
        else:
            unfolded.append(line)
    return unfolded
