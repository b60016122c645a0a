"""The two sides of a relay, as far as it knows them: the client, and an exchange with the provider."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.upstream.http.messages import UpstreamRequest, UpstreamResponseHead


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


class ProviderExchange(Protocol):
    """One request to a provider and its response (upstream/http/exchange.py)."""

    @property
    def complete(self) -> bool:
        """True if the response has ended and all of it has been read."""

    @property
    def finished(self) -> bool:
        """True if the response has ended, read or not."""

    @property
    def held_bytes(self) -> int:
        """Body bytes that have arrived and have not been read."""

    async def head(self) -> UpstreamResponseHead:
        """Wait for the response head; raise UpstreamError if none arrives."""

    async def read(self) -> bytes:
        """Wait for body bytes; return b"" at the end, raise UpstreamError if the response breaks off."""

    def abort(self, reason: str) -> None:
        """End the exchange; head() and read() then raise ExchangeAborted."""


class Upstream(Protocol):
    """Starts exchanges with providers."""

    def start(self, request: UpstreamRequest) -> ProviderExchange:
        """Send a request."""
