"""Logs one HTTP exchange in three lines, with the first bytes of its bodies and without its secrets."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from tornado_proxy.sdk.redaction import Redactor

if TYPE_CHECKING:
    import httpx2

_log = logging.getLogger("tornado_proxy.sdk.http")

#: Bytes of a body beyond its limit that are kept, so that a secret which is cut off there is recognized.
_LOOKAHEAD_BYTES = 4096

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TEXT_TYPE = re.compile(r"text/|application/(?:[\w.+-]*json|x-www-form-urlencoded|xml)\b", re.IGNORECASE)

_numbers = itertools.count(1)


def is_enabled() -> bool:
    """Return True if the lines of an exchange are logged anywhere."""
    return _log.isEnabledFor(logging.INFO)


class ExchangeLog:
    """The lines of one exchange.  A redirect is an exchange of its own."""

    def __init__(self, request: httpx2.Request, body: bytes | None, body_limit: int) -> None:
        """Log the request; `body` is None if it is sent as it is read, such as a file."""
        self._number = next(_numbers)
        self._body_limit = body_limit
        self._redactor = Redactor()
        self._redactor.learn(request.headers.multi_items())
        self._began = time.monotonic()
        shown = "(body is not kept)" if body is None else self._show_body(body, len(body), request.headers)
        headers = self._show_headers(request.headers)
        _log.info("#%d %s %s %s %s", self._number, request.method, self._show(str(request.url)), headers, shown)

    def log_head(self, response: httpx2.Response) -> BodyCapture:
        """Log the head of the response; return the capture that its body passes through."""
        self._redactor.learn(response.headers.multi_items())
        headers = self._show_headers(response.headers)
        _log.info("#%d %d after %d ms %s", self._number, response.status_code, self._elapsed_ms, headers)
        return BodyCapture(self, response.headers, self._count_kept_bytes())

    def log_body(self, kept: bytes, size: int, headers: httpx2.Headers, ending: str) -> None:
        """Log the start of the response body and how it ended."""
        shown = self._show_body(kept, size, headers)
        _log.info("#%d %d bytes in %d ms%s: %s", self._number, size, self._elapsed_ms, ending, shown)

    @property
    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)

    def _count_kept_bytes(self) -> int:
        return self._body_limit + max(_LOOKAHEAD_BYTES, 4 * self._redactor.longest) if self._body_limit else 0

    def _show_body(self, body: bytes, size: int, headers: httpx2.Headers) -> str:
        content_type = headers.get("content-type", "")
        if not size:
            return "(no body)"
        if not self._body_limit:
            return f"({size} bytes)"
        if not _TEXT_TYPE.match(content_type) or headers.get("content-encoding", "identity") != "identity":
            return f"({size} bytes of {self._show(content_type) or 'no stated type'})"
        text = self._redactor.redact(body[: self._count_kept_bytes()].decode("utf-8", "replace"))
        cut = text.encode()[: self._body_limit].decode("utf-8", "ignore")
        return _escape(cut) + (f"... ({size} bytes)" if size > self._body_limit else "")

    def _show_headers(self, headers: httpx2.Headers) -> str:
        return _escape(self._redactor.redact_headers(headers.multi_items()))

    def _show(self, text: str) -> str:
        return _escape(self._redactor.redact(text))


class BodyCapture:
    """Keeps the first bytes of a response body that passes, and logs them when it ends."""

    def __init__(self, log: ExchangeLog, headers: httpx2.Headers, limit: int) -> None:
        self._log, self._headers, self._limit = log, headers, limit
        self._kept = bytearray()
        self._size = 0
        self._ended = False

    def take(self, chunk: bytes) -> None:
        """Count a chunk, and keep it up to the limit."""
        self._size += len(chunk)
        missing = self._limit - len(self._kept)
        if missing > 0:
            self._kept += chunk[:missing]

    def end(self, ending: str = "") -> None:
        """Log the body, once."""
        if not self._ended:
            self._ended = True
            self._log.log_body(bytes(self._kept), self._size, self._headers, ending)


class PassingBody:
    """A response body whose chunks go to a capture as they pass; a mixin for the stream class of the HTTP library."""

    def __init__(self, stream: httpx2.SyncByteStream, capture: BodyCapture) -> None:
        self._stream, self._capture = stream, capture

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._capture.take(chunk)
                yield chunk
        except Exception as error:
            self._capture.end(f", broken off by {type(error).__name__}")
            raise
        self._capture.end()

    def close(self) -> None:
        """Close the response; a body that has not ended was closed by the program."""
        self._capture.end(", closed before its end")
        self._stream.close()


class AsyncPassingBody:
    """The asynchronous form of PassingBody."""

    def __init__(self, stream: httpx2.AsyncByteStream, capture: BodyCapture) -> None:
        self._stream, self._capture = stream, capture

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                self._capture.take(chunk)
                yield chunk
        except Exception as error:
            self._capture.end(f", broken off by {type(error).__name__}")
            raise
        self._capture.end()

    async def aclose(self) -> None:
        """Close the response; a body that has not ended was closed by the program."""
        self._capture.end(", closed before its end")
        await self._stream.aclose()


def _escape(text: str) -> str:
    """Return `text` with control characters escaped, so that a body cannot forge a log line."""
    return _CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
