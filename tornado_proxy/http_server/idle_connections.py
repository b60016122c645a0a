"""The connections that wait for a request: which of them have waited for too long, and which is closed first."""

from __future__ import annotations

from typing import Protocol

#: Seconds that a client has for a request head: from its first byte, or from the connection for the first request.
#: Same as nginx's client_header_timeout.  Without it, clients that send half a head hold all descriptors.
_HEAD_TIMEOUT_S = 60.0

#: Seconds that a connection may stay open between two requests.  Same as Tornado's default.
_IDLE_TIMEOUT_S = 3600.0

#: Seconds that a connection has waited before it is closed for lack of descriptors.  A client that has just connected
#: must have the time to send its request.
_MIN_CLOSE_IDLE_S = 5.0


class WaitingConnection(Protocol):
    """A connection that has not received the head of its next request."""

    @property
    def new(self) -> bool:
        """True if it has had no request yet."""

    @property
    def head_begun(self) -> bool:
        """True if a part of the next head has arrived."""

    def close(self) -> None:
        """Close the connection at once."""


class IdleConnections:
    """The connections that have not received the headers of their next request, each with the time it started waiting.

    Times are in seconds of the event loop's clock.  Both dicts are ordered by time, oldest first.  A connection changes
    them itself between two requests.
    """

    def __init__(self) -> None:
        #: Connections between two requests.
        self.idle_since: dict[WaitingConnection, float] = {}
        #: New connections, and those that have begun a head: the next head must be complete soon.
        self.head_since: dict[WaitingConnection, float] = {}

    def add(self, connection: WaitingConnection, now: float) -> None:
        """Start the clock of `connection`, which is ready for its next request."""
        if connection.new:
            self.head_since[connection] = now
        else:
            self.idle_since[connection] = now

    def discard(self, connection: WaitingConnection) -> None:
        """Stop the clock of `connection`: it has received request headers, or has closed."""
        self.idle_since.pop(connection, None)
        self.head_since.pop(connection, None)

    def list_expired(self, now: float) -> list[WaitingConnection]:
        """Return the connections whose head is late, and those that have been idle for too long."""
        # A head's clock starts at the first sweep that sees a byte of it: a timeout is late by one interval at most.
        for connection in [connection for connection in self.idle_since if connection.head_begun]:
            del self.idle_since[connection]
            self.head_since[connection] = now
        return [
            *(connection for connection, since in self.head_since.items() if now - since > _HEAD_TIMEOUT_S),
            *(connection for connection, since in self.idle_since.items() if now - since > _IDLE_TIMEOUT_S),
        ]

    def find_oldest(self, now: float) -> WaitingConnection | None:
        """Return the connection that waits longest, one between two requests first; None if none waits for long."""
        for waiting in (self.idle_since, self.head_since):
            connection = next(iter(waiting), None)
            if connection is not None and now - waiting[connection] >= _MIN_CLOSE_IDLE_S:
                return connection
        return None
