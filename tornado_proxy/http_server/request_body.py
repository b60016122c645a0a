"""Limits request bodies that are being received, in time and size.

A request whose body stalls or trickles holds a connection and memory, so it times out.
"""

from __future__ import annotations

from typing import Protocol

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


class PausableExchange(Protocol):
    """Receives a request (http_server/exchange.py)."""

    def pause_body(self) -> None:
        """Read nothing more of the request until resume_body()."""

    def resume_body(self) -> None:
        """Read the request again."""


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


class BodyFlow:
    """Stops the body of a request that arrives faster than it is taken; the client is not slow meanwhile.

    Args:
        request: The request.
        timeouts: Watches its body.
        exchange: Receives it.
    """

    def __init__(self, request: PendingRequest, timeouts: BodyTimeouts, exchange: PausableExchange) -> None:
        self._request = request
        self._timeouts = timeouts
        self._exchange = exchange

    def pause(self) -> None:
        """Read nothing more."""
        self._timeouts.end(self._request)
        self._exchange.pause_body()

    def resume(self, *, is_watched: bool) -> None:
        """Read again, and time out a slow body if `is_watched`."""
        self._exchange.resume_body()
        if is_watched:
            self._timeouts.begin(self._request)


class ByteCount(Protocol):
    """Counts the bytes held for one request or session."""

    def add(self, size: int) -> None:
        """Count more bytes; raise RequestError if that is too many."""

    def release(self) -> None:
        """Stop counting."""
