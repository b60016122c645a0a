"""Requests whose body has stopped coming: each holds a connection, so they are ended by and by.

They are looked at now and then, because a timer for each request costs more than the request's own bookkeeping.
"""

from __future__ import annotations

from typing import Protocol

#: Seconds without a byte of a body after which its request is ended; nginx's client_body_timeout.
_SILENCE_S = 60.0


class Arriving(Protocol):
    """A request whose head is there, and whose body is not or not all of it."""

    @property
    def received_bytes(self) -> int:
        """Bytes of the body that have come."""

    def on_body_timeout(self) -> None:
        """Nothing more comes: end it."""


class BodyTimeouts:
    """The requests that arrive."""

    def __init__(self) -> None:
        #: How much of each had come when it was looked at, and since when that is so (the loop's time).
        self._seen: dict[Arriving, tuple[int, float]] = {}

    def begins(self, request: Arriving) -> None:
        """Its head is there."""
        self._seen[request] = (-1, 0.0)

    def ends(self, request: Arriving) -> None:
        """It is whole, or its connection has closed."""
        self._seen.pop(request, None)

    def look(self, now: float) -> None:
        """End those of which nothing has come for too long."""
        for request, (count, since) in list(self._seen.items()):
            if request.received_bytes != count:
                self._seen[request] = (request.received_bytes, now)
            elif now - since > _SILENCE_S:
                self.ends(request)
                request.on_body_timeout()
