"""Times out requests whose body stalls: each of them holds a connection.

A periodic check compares byte counts.  A timer per request would cost more than the rest of a request's bookkeeping.
"""

from __future__ import annotations

from typing import Protocol

#: Seconds without a body byte after which a request times out.  Same as nginx's client_body_timeout.
_BODY_TIMEOUT_S = 60.0


class PendingRequest(Protocol):
    """A request whose headers have been received and whose body is incomplete."""

    @property
    def received_bytes(self) -> int:
        """The number of body bytes received so far."""

    def on_body_timeout(self) -> None:
        """Called once when the body has stalled; ends the request."""


class BodyTimeouts:
    """The requests whose body is being received.  Times are in seconds of the event loop's clock."""

    def __init__(self) -> None:
        #: The byte count of each request at the last check that saw it change, and the time of that check.
        self._progress: dict[PendingRequest, tuple[int, float]] = {}

    def begin(self, request: PendingRequest) -> None:
        """Watch `request`.  Its clock starts at the next check, so a timeout is late by at most one check interval."""
        self._progress[request] = (-1, 0.0)

    def end(self, request: PendingRequest) -> None:
        """Stop watching `request`: its body is complete, or its connection has closed."""
        self._progress.pop(request, None)

    def check(self, now: float) -> None:
        """Time out every request that has received no body byte for longer than _BODY_TIMEOUT_S."""
        for request, (count, since) in list(self._progress.items()):
            if request.received_bytes != count:
                self._progress[request] = (request.received_bytes, now)
            elif now - since > _BODY_TIMEOUT_S:
                self.end(request)
                request.on_body_timeout()
