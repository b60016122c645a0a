"""The handshake of a WebSocket on a client's side, without I/O (RFC 6455 section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from tornado.websocket import WebSocketProtocol13

#: Limits of a response.  The body of an error has some 500 bytes.
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 1024 * 1024

_SWITCHING_PROTOCOLS = 101

_NOT_CONFIRMED = "its headers do not confirm the upgrade"


class InvalidUpgrade(Exception):
    """A response that is not valid HTTP, is too large, or does not confirm the upgrade as RFC 6455 requires."""


@dataclass(frozen=True, slots=True)
class UpgradeResponse:
    """The response to an upgrade.

    `headers` have names in lower case, and lines of one name are joined by commas; `body` is that of a refusal, `rest`
    are the bytes of the WebSocket that have arrived.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    rest: bytes = b""


def make_upgrade_request(url: str, headers: Iterable[tuple[str, str]], subprotocols: Sequence[str], key: str) -> bytes:
    """Return the request that opens a WebSocket.

    Raises:
        ValueError: a line end inside a line: it would begin another header.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Accept-Encoding: identity",  # the body of a refusal passes without its Content-Encoding
    ]
    if subprotocols:
        lines.append(f"Sec-WebSocket-Protocol: {','.join(subprotocols)}")
    lines += [f"{name}: {value}" for name, value in headers]
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header of the request contains a line end")
    return f"{text}\r\n\r\n".encode("latin-1")


class UpgradeReader:
    """Parses the response: feed() the bytes, end() if the connection has closed; close() in each case.

    Args:
        key: The Sec-WebSocket-Key of the request.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._parser = HttpResponseParser(self)
        self._begin()

    def feed(self, data: bytes) -> UpgradeResponse | None:
        """Take the next bytes; return the response when it is complete.

        Raises:
            InvalidUpgrade: it is not valid.
        """
        rest, fault = b"", ""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except HttpParserError as error:  # also for a 101 response without the headers of an upgrade
            fault = _NOT_CONFIRMED if self._is_upgrade else f"malformed HTTP: {error}"
        if fault:  # raised here, because the cause would hold this object
            raise InvalidUpgrade(fault)
        self._head_bytes += len(data)
        if not self._has_head and self._head_bytes > _MAX_HEAD_BYTES:
            raise InvalidUpgrade(f"its head has more than {_MAX_HEAD_BYTES} bytes")
        if len(self._body) > _MAX_BODY_BYTES:
            raise InvalidUpgrade(f"its body has more than {_MAX_BODY_BYTES} bytes")
        return self._make_response(rest) if self._complete else None

    def close(self) -> None:
        """Free the parser: it refers to this object, which refers to it."""
        del self._parser

    def end(self) -> UpgradeResponse:
        """Return the response whose body ends with the connection.

        Raises:
            InvalidUpgrade: the response is not complete.
        """
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if not self._has_head or framed:
            raise InvalidUpgrade("the connection closed before its end")
        return self._make_response(b"")

    @property
    def _is_upgrade(self) -> bool:
        return self._has_head and self._parser.get_status_code() == _SWITCHING_PROTOCOLS

    def _make_response(self, rest: bytes) -> UpgradeResponse:
        if self._is_upgrade:
            self._check_upgrade()
        return UpgradeResponse(self._parser.get_status_code(), self._headers, bytes(self._body), rest)

    def _check_upgrade(self) -> None:
        headers = self._headers
        options = [option.strip().lower() for option in headers.get("connection", "").split(",")]
        if (
            headers.get("upgrade", "").lower() != "websocket"
            or "upgrade" not in options
            or headers.get("sec-websocket-accept") != WebSocketProtocol13.compute_accept_value(self._key)
            or "sec-websocket-extensions" in headers  # none was offered
        ):
            raise InvalidUpgrade(_NOT_CONFIRMED)

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head_bytes = 0
        self._has_head = self._complete = False

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known},{text}"

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self._has_head = True

    def on_body(self, data: bytes) -> None:
        """Take bytes of the body, as many as are allowed."""
        if len(self._body) <= _MAX_BODY_BYTES:
            self._body += data

    def on_message_complete(self) -> None:
        """Note the end of the response; go on after an informational one (RFC 9110 section 15.2)."""
        if 100 <= self._parser.get_status_code() < 200 and not self._is_upgrade:
            self._begin()
        else:
            self._complete = True
