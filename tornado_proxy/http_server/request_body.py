"""Limits request bodies that are being received, in time and size.

A request whose body stalls or trickles holds a connection and memory, so it times out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tornado.httputil import HTTPMessageDelegate

from tornado_proxy.domain.errors import RequestError

#: Seconds over which the rate of a body is measured.  Same as nginx's client_body_timeout.
_BODY_TIMEOUT_S = 60.0

#: Bytes per second that a body must have over any _BODY_TIMEOUT_S.  Same as Apache's RequestReadTimeout.  Without it,
#: a client that sends a byte a minute holds a connection and the received part of its body for as long as it likes.
_MIN_BODY_BYTES_PER_S = 500


class PendingRequest(Protocol):
    """A request whose headers have been received and whose body is incomplete."""

    @property
    def received_bytes(self) -> int:
        """The number of body bytes received so far."""

    def on_body_timeout(self) -> None:
        """Called once when the body is too slow; ends the request."""


class BodyTimeouts:
    """The requests whose body is being received.  Times are in seconds of the event loop's clock.

    A periodic check compares byte counts.  A timer per request would cost more than the rest of a request's
    bookkeeping.
    """

    def __init__(self) -> None:
        #: The byte count of each request when its rate was last sufficient, and the time of that check.
        self._progress: dict[PendingRequest, tuple[int, float]] = {}

    def begin(self, request: PendingRequest) -> None:
        """Watch `request`.  Its clock starts at the next check, so a timeout is late by at most one check interval."""
        self._progress[request] = (-1, 0.0)

    def end(self, request: PendingRequest) -> None:
        """Stop watching `request`: its body is complete, or its connection has closed."""
        self._progress.pop(request, None)

    def check(self, now: float) -> None:
        """Time out every request whose body was slower than _MIN_BODY_BYTES_PER_S for longer than _BODY_TIMEOUT_S."""
        for request, (count, since) in list(self._progress.items()):
            if count < 0 or request.received_bytes - count >= _MIN_BODY_BYTES_PER_S * _BODY_TIMEOUT_S:
                self._progress[request] = (request.received_bytes, now)
            elif now - since > _BODY_TIMEOUT_S:
                self.end(request)
                request.on_body_timeout()


class ByteCount(Protocol):
    """Counts the bytes held for one request or session."""

    def add(self, size: int) -> None:
        """Count more bytes; raise RequestError if that is too many."""

    def release(self) -> None:
        """Stop counting."""


class LimitedDelegate(HTTPMessageDelegate):
    """Limits a body that another delegate of Tornado collects: closes its connection if it is slow or too much is held.

    Args:
        delegate: Receives the request.
        close: Closes its connection.
        body_timeouts: Watches the body.
        open_count: Called at the first byte of a body; returns the count of its bytes.
    """

    def __init__(
        self,
        delegate: HTTPMessageDelegate,
        close: Callable[[], None],
        body_timeouts: BodyTimeouts,
        open_count: Callable[[], ByteCount],
    ) -> None:
        self._delegate = delegate
        self._body_timeouts = body_timeouts
        self._open_count = open_count
        self._held: ByteCount | None = None
        #: No handler can respond before Tornado has received the whole body, so the connection is closed.
        self.on_body_timeout = close
        self.received_bytes = 0

    def headers_received(self, start_line: Any, headers: Any) -> Awaitable[None] | None:
        """Called when the headers are complete."""
        self._body_timeouts.begin(self)
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Called with each chunk of the body."""
        self.received_bytes += len(chunk)
        self._held = self._held or self._open_count()
        try:
            self._held.add(len(chunk))
        except RequestError:
            self.on_body_timeout()
            return None
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        """Called when the request is complete."""
        self._end()
        self._delegate.finish()

    def on_connection_close(self) -> None:
        """Called when the client disconnects before the request is complete."""
        self._end()
        self._delegate.on_connection_close()

    def _end(self) -> None:
        self._body_timeouts.end(self)
        if self._held is not None:
            self._held.release()
