"""Paths that neither provider has."""

from __future__ import annotations

from tornado_proxy.simulator.handlers.provider_errors import ProviderFault
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler


class UnknownPath(ProviderHandler):
    """404 in the shape of the provider whose path or header it looks like."""

    def prepare(self) -> None:
        """Record and refuse."""
        super().prepare()
        if self.request.method == "HEAD":
            return
        raise ProviderFault(404, f"Invalid URL ({self.request.method} {self.request.path})")

    def head(self, *_: str) -> None:
        """A probe of whether anybody is there."""


class UnknownAnthropicPath(UnknownPath):
    """404 in Anthropic's shape."""

    anthropic = True
