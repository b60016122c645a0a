"""Paths that neither provider has."""

from __future__ import annotations

from tornado_proxy.simulator.handlers.provider_errors import ProviderError
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler


class UnknownPath(ProviderHandler):
    """Responds with 404 in OpenAI's error format."""

    def prepare(self) -> None:
        """Record and reject the request.

        Raises:
            ProviderError: 404, for every method but HEAD.
        """
        super().prepare()
        if self.request.method == "HEAD":
            return
        raise ProviderError(404, f"Invalid URL ({self.request.method} {self.request.path})")

    def head(self, *_: str) -> None:
        """Respond with 200: some clients probe with HEAD whether a server is reachable."""


class UnknownAnthropicPath(UnknownPath):
    """Responds with 404 in Anthropic's error format."""

    anthropic = True
