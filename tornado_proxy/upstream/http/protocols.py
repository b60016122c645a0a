"""Exchanges with providers, as far as those who use them know: a relay, the settlement, a layer between."""

from __future__ import annotations

from typing import Protocol

from tornado_proxy.upstream.http.messages import UpstreamRequest, UpstreamResponseHead


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
