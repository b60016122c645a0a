"""The client's side of a relay, as far as the relay knows it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from tornado_proxy.domain.errors import UpstreamError


class Client(Protocol):
    """The client's side of a relay.  `send` and `finish_response` raise StreamClosedError if the client has left."""

    @property
    def delivered(self) -> bool:
        """True if the client's socket has taken the whole response."""

    def begin(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Set the response head, which leaves with the first bytes."""

    def send(self, data: bytes) -> Awaitable[None]:
        """Write `data`; the result is done when the socket has taken it."""

    async def finish_response(self, data: bytes) -> None:
        """Write the last bytes and end the response."""

    def cut(self) -> None:
        """Break the connection, so that the response cannot look complete."""

    async def reject(self, error: UpstreamError) -> None:
        """Send an error response in the provider's format; no byte of a response has been sent."""
