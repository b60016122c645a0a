"""A client's HTTP/1.1 connection: reads one request after another.

    head ──> delegate.headers_received ──> body ──> delegate.finish ──> (the response is written) ──> next head
      │                                     │
      └── malformed ────────────────────────┴──> 400 in the provider's format, then close

Tornado's HTTP1Connection writes responses and does the framing.  Reading is ours, because Tornado's reader compares
Expect with case, rejects chunk extensions, trailers and absolute targets, and sends a 400 without a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    parse_request_start_line,
)
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from tornado_proxy.http_server.chunked_body import ChunkedBody
from tornado_proxy.http_server.lingering_close import close_lingering, duplicate_socket

_log = logging.getLogger(__name__)

_END_OF_HEAD = rb"\r?\n\r?\n"

_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"

#: Scheme and authority of a target in absolute form (RFC 9112 section 3.2.2).
_AUTHORITY = re.compile(r"https?://[^/?#]+", re.IGNORECASE)

#: Where Tornado's messages on malformed requests begin to repeat the client's bytes, which can hold a credential.
_REPEATED = re.compile(r"[:'\"%].*", re.DOTALL)

#: Makes the response to a malformed request: takes its target ("/" if unknown) and the fault, returns head and body.
MakeRejection = Callable[[str, str], bytes]


class ClientConnection(HTTP1ServerConnection):
    """Serves the requests of one connection."""

    def __init__(
        self, stream: IOStream, params: HTTP1ConnectionParameters, context: object, make_rejection: MakeRejection
    ) -> None:
        super().__init__(stream, params, context)
        self._make_rejection = make_rejection
        #: True until the first request has been read.
        self.new = True

    @property
    def head_begun(self) -> bool:
        """True if bytes of the next request head have arrived; call it only while the connection waits for one."""
        return self.stream._read_buffer_size > 0

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        try:
            while await self._serve_request(delegate):
                self.new = False
                await asyncio.sleep(0)  # Tornado's own: pipelined requests must not keep other connections waiting
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            pass
        finally:
            delegate.on_close(self)

    async def _serve_request(self, delegate: HTTPServerConnectionDelegate) -> bool:
        """Read a request and wait for its response; return True if the connection can take another."""
        connection = RequestConnection(self.stream, self.params, self.context, self._make_rejection)
        try:
            return await connection.read_response(delegate.start_request(self, connection))
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  # the connection's task is the last place that can close it
            _log.error("connection failed", exc_info=True)
            connection.close()
            return False


class RequestConnection(HTTP1Connection):
    """One request on a connection, and its response."""

    def __init__(
        self, stream: IOStream, params: HTTP1ConnectionParameters, context: object, make_rejection: MakeRejection
    ) -> None:
        super().__init__(stream, is_client=False, params=params, context=context)
        self._make_rejection = make_rejection
        self._target = "/"

    async def read_response(self, delegate: HTTPMessageDelegate) -> bool:
        """Read a request; return True if the connection is open after its response.  The name is Tornado's."""
        try:
            return await self._read_request(delegate)
        except HTTPInputError as error:
            self._reject(str(error))
            return False

    async def _read_request(self, delegate: HTTPMessageDelegate) -> bool:
        delegate_waits = False
        try:
            start_line, headers = await self._read_head()
            delegate_waits = True
            prepared = delegate.headers_received(start_line, headers)
            if prepared is not None:
                await prepared
            await self._receive_body(headers, delegate)
            if not self._write_finished:
                delegate.finish()
            delegate_waits = False
            await self._wait_for_response()
            return self.stream is not None  # None after an upgrade to a WebSocket
        finally:
            if delegate_waits:
                delegate.on_connection_close()
            self._clear_callbacks()

    async def _read_head(self) -> tuple[RequestStartLine, HTTPHeaders]:
        data = await self.stream.read_until_regex(_END_OF_HEAD, max_bytes=self.params.max_header_size)
        try:
            line, headers = self._parse_headers(data)
            start_line = parse_request_start_line(line)
        except HTTPInputError:
            self._target = _guess_target(data)
            raise
        if not start_line.path.startswith("/"):
            start_line = start_line._replace(path=_make_origin_form(start_line.path))
        self._target = start_line.path
        self._request_start_line, self._request_headers = start_line, headers
        self._disconnect_on_finish = not self._can_keep_alive(start_line, headers)
        return start_line, headers

    async def _receive_body(self, headers: HTTPHeaders, delegate: HTTPMessageDelegate) -> None:
        # RFC 9110 section 10.1.1: the expectation is case-insensitive.  JDK 17 writes 100-Continue.
        if not self._write_finished and headers.get("Expect", "").lower() == "100-continue":
            self.stream.write(_CONTINUE)
        body = self._read_body(0, headers, delegate)
        if body is not None:
            await body
        self._read_finished = True

    def _read_chunked_body(self, delegate: HTTPMessageDelegate) -> Awaitable[None]:  # type: ignore[override]  # a coroutine there
        def deliver(data: bytes) -> Awaitable[None]:
            return self._deliver_body(delegate, data)

        piece_bytes, max_bytes = self.params.chunk_size, self._max_body_size
        return ChunkedBody(self.stream, deliver, piece_bytes=piece_bytes, max_bytes=max_bytes).read()

    async def _wait_for_response(self) -> None:
        if self._finish_future.done() or self.stream is None or self.stream.closed():
            return
        self.stream.set_close_callback(self._on_connection_close)
        await self._finish_future

    def _reject(self, fault: str) -> None:
        """Send a 400 and close; only close if a response has begun."""
        duplicate = None
        if self._response_start_line is None and not self.stream.closed():
            duplicate = duplicate_socket(self.stream)
            with contextlib.suppress(StreamClosedError):
                # Not awaited: it fits into the socket's buffer, unless the client reads nothing at all.
                self.stream.write(self._make_rejection(self._target, _REPEATED.sub("", fault).strip()))
        self.close()
        if duplicate is not None:
            close_lingering(duplicate)


def _make_origin_form(target: str) -> str:
    """Return the path and query of a target in absolute form.  The authority is not used: there is one site here."""
    path = _AUTHORITY.sub("", target, count=1)
    if path == target:
        return target
    return path if path.startswith("/") else f"/{path}"


def _guess_target(head: bytes) -> str:
    """Return the target of a malformed request, as far as it can be read, so that the 400 has the right format."""
    parts: list[Any] = head.lstrip(b"\r\n").split(b"\n", 1)[0].split(b" ")
    return _make_origin_form(parts[1].decode("latin-1")) if len(parts) > 1 else "/"
