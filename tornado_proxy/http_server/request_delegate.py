"""Feeds a request to its handler: the headers at once, the body in chunks, then a task when the request is complete.

Tornado's own delegate starts a task when the headers arrive, which sleeps until the body is complete.  That costs two
turns of the event loop and three futures per request (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from tornado.httputil import HTTPMessageDelegate

from tornado_proxy import tasks
from tornado_proxy.http_server.body_timeout import BodyTimeouts, PendingRequest


class StreamedRequestHandler(PendingRequest, Protocol):
    """Handles one request that arrives in pieces."""

    def prepare(self) -> Awaitable[None] | None:
        """Check the headers.  Tornado reads the body after the returned awaitable is done."""

    def data_received(self, chunk: bytes) -> None:
        """Receive the next chunk of the body."""

    def serve(self) -> Coroutine[Any, Any, None]:
        """Respond to the complete request.  Never raises."""

    def fail(self, error: Exception) -> None:
        """Log an unexpected error and send an error response if none has begun."""

    def on_client_gone(self) -> None:
        """Called when the client disconnects before the request is complete."""


class RequestDelegate(HTTPMessageDelegate):
    """Feeds one request to `handler` and watches its body with `body_timeouts`."""

    def __init__(self, handler: StreamedRequestHandler, body_timeouts: BodyTimeouts) -> None:
        self._handler = handler
        self._body_timeouts = body_timeouts

    def headers_received(self, start_line: Any, headers: Any) -> Awaitable[None] | None:
        """Called by Tornado when the headers are complete; return an awaitable that delays the body."""
        self._body_timeouts.begin(self._handler)
        try:
            return self._handler.prepare()
        except Exception as error:  # noqa: BLE001  # otherwise Tornado closes the connection without a response
            self._handler.fail(error)
            return None

    def data_received(self, chunk: bytes) -> None:
        """Called by Tornado with each chunk of the body."""
        self._handler.data_received(chunk)

    def finish(self) -> None:
        """Called by Tornado when the request is complete."""
        self._body_timeouts.end(self._handler)
        tasks.spawn(self._handler.serve(), "call")

    def on_connection_close(self) -> None:
        """Called by Tornado when the client disconnects before the request is complete."""
        self._body_timeouts.end(self._handler)
        self._handler.on_client_gone()
