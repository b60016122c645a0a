"""The realtime calls that are metered over a sideband now.

A client may open a WebSocket to its own call.  While the call's sideband lives, what the call uses is recorded there;
otherwise (after a restart, or for an id that is no call's) the client's session is metered itself.
"""

from __future__ import annotations


class LiveCalls:
    """Holds the provider and id of each call from before its sideband connects until its meter is closed."""

    def __init__(self) -> None:
        self._calls: set[tuple[str, str]] = set()

    def add(self, provider: str, call_id: str) -> None:
        """Take a call in."""
        self._calls.add((provider, call_id))

    def discard(self, provider: str, call_id: str) -> None:
        """Take a call out, if it is in."""
        self._calls.discard((provider, call_id))

    def has(self, provider: str, call_id: str) -> bool:
        """Return True if the call is metered over its sideband."""
        return (provider, call_id) in self._calls
