"""The pages for people and probes on the client port: what this is, its base URLs, and where to get a token.

Clients probe the base URL that they are given (Claude Code sends HEAD to it), and people open it in a browser.
"""

from __future__ import annotations

from collections.abc import Iterable

from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.gateway.http.public_url import own_root
from tornado_proxy.providers.contract import Provider

_HEALTH_PATH = "/health"

_PURPOSE = "tornado-proxy relays requests to LLM providers and meters them."

_ACCESS_ADVICE = """\
The API key is a participant token or an access key of your project.  The operator of this server makes one with
`tornado-proxy token mint` or `tornado-proxy access-key create`.  A provider's own key is not accepted here.
"""


def list_start_paths(providers: Iterable[Provider]) -> frozenset[str]:
    """Return the paths that are served here: the root, the health check, and each base URL of a provider."""
    paths = {"/", _HEALTH_PATH, "/v1", "/v1/"}
    for provider in providers:
        for base in (f"/{provider.prefix}", f"/{provider.prefix}/v1"):
            paths |= {base, f"{base}/"}
    return frozenset(paths)


class StartPageHandler(BaseHandler):
    """Responds to GET and HEAD with text, without a credential."""

    def get(self) -> None:
        """Send the page."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        self.finish("ok\n" if self.request.path == _HEALTH_PATH else self._describe())

    head = get

    def _describe(self) -> str:
        snapshot = self.services.snapshots.current
        root = own_root(self.incoming, snapshot.settings.public)
        base_urls = "".join(
            f"  {provider.title + ':':<12}{root}/{provider.prefix}{provider.sdk_variables.base_path}"
            f"   ({provider.sdk_variables.base_url})\n"
            for provider in snapshot.routes.providers
        )
        dashboard = f"Your usage, in a browser: {root}/dashboard/\n"
        return f"{_PURPOSE}\n\nBase URLs:\n{base_urls}\n{_ACCESS_ADVICE}\n{dashboard}"
