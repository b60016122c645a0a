"""From a request's method and raw target to the endpoint that serves it.

Targets are matched as they came.  What another reader might take for another path (an encoded slash, `..`, `//`, a
backslash, a control character) is refused, never normalised: whoever normalises differently gets in between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from tornado_proxy.domain.errors import BadRequest, MethodNotAllowed, NotFound, UpgradeRequired
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, Provider, WebSocketEndpoint

#: Path segments of plain characters (RFC 3986 unreserved, and what ids hold); no percent-encoding at all.
_PLAIN_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:[/;]|$))[A-Za-z0-9_.~:@!$,;=+*'()-]+)+")
_PLAIN_QUERY = re.compile(r"[\x21-\x7e]*")

_ID = "{id}"


EndpointT = TypeVar("EndpointT", bound=Endpoint, covariant=True)


@dataclass(frozen=True, slots=True)
class Match(Generic[EndpointT]):
    """The endpoint of a request.

    `upstream_target` is the provider's path and the query, `path_id` the `{id}` segment of the path.
    """

    provider: Provider
    endpoint: EndpointT
    upstream_target: str
    path_id: str | None = None

    @property
    def query(self) -> str:
        """The raw query, without the question mark."""
        return self.upstream_target.partition("?")[2]


class RouteTable:
    """The endpoints of several providers.  The first provider also answers at the root."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = {provider.prefix: provider for provider in providers}
        self._default = providers[0]
        self._exact: dict[tuple[str, str], dict[str, Endpoint]] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], dict[str, Endpoint]]]] = {}
        #: Plain targets that have been matched; there are as many as endpoints, or twice that with the prefixes.
        self._matched: dict[tuple[str, str], Match[Endpoint]] = {}
        for provider in providers:
            self._add(provider)

    def match_http(self, method: str, target: str) -> Match[HttpEndpoint]:
        """Return the HTTP endpoint for `method` and the raw request target (path, perhaps `?` and a query).

        Raises:
            BadRequest: the target could be read in two ways.
            NotFound: no endpoint has this path.
            MethodNotAllowed: the endpoint takes other methods.
            UpgradeRequired: the path is a WebSocket.
        """
        match = self.match(method, target)
        if isinstance(match.endpoint, WebSocketEndpoint):
            raise UpgradeRequired("this path is a WebSocket; connect to it with wss:// or ws://")
        return cast(Match[HttpEndpoint], match)

    def match_websocket(self, target: str) -> Match[WebSocketEndpoint]:
        """Return the WebSocket endpoint at the raw request target.

        Raises:
            BadRequest: the target could be read in two ways, or its path is no WebSocket.
            NotFound: no endpoint has this path.
            MethodNotAllowed: the path takes no GET.
        """
        match = self.match("GET", target)
        if isinstance(match.endpoint, HttpEndpoint):
            raise BadRequest("this path is no WebSocket; send a plain HTTP request", code="no_websocket")
        return cast(Match[WebSocketEndpoint], match)

    def match(self, method: str, target: str) -> Match[Endpoint]:
        """Return the endpoint for `method` and the raw request target.

        Raises:
            BadRequest: the target could be read in two ways.
            NotFound: nothing is served there.
            MethodNotAllowed: something is, with other methods.
        """
        known = self._matched.get((method, target))
        if known is not None:
            return known
        match = self._match(method, target)
        if match.path_id is None and "?" not in target:
            self._matched[method, target] = match
        return match

    def provider_for(self, target: str) -> Provider:
        """The provider whose errors a request to `target` understands, served or not."""
        first = target.split("/", 2)[1] if target.startswith("/") and target.count("/") > 1 else ""
        return self._providers.get(first, self._default)

    def provider(self, name: str) -> Provider:
        """The provider of that name."""
        return next(provider for provider in self._providers.values() if provider.name == name)

    def http_endpoint(self, provider: str, method: str, path: str) -> HttpEndpoint | None:
        """Return the HTTP endpoint at a provider's own path without an id, None if it has none."""
        endpoint = self._exact.get((provider, path), {}).get(method)
        return endpoint if isinstance(endpoint, HttpEndpoint) else None

    def _match(self, method: str, target: str) -> Match[Endpoint]:
        path, mark, query = target.partition("?")
        if not _PLAIN_PATH.fullmatch(path) or not _PLAIN_QUERY.fullmatch(query) or "#" in query:
            raise BadRequest(
                "the request target holds characters that are not taken here (encoded or empty path segments, dots, "
                "backslashes, control characters); write the path as the provider documents it",
                code="invalid_path",
            )
        provider = self.provider_for(target)
        inner = path.removeprefix(f"/{provider.prefix}") if path.startswith(f"/{provider.prefix}/") else path
        methods, path_id = self._find(provider, inner)
        if methods is None:
            raise NotFound(f"{path[:200]} is not served here; {self._hint(provider, inner)}")
        endpoint = methods.get(method)
        if endpoint is None:
            allowed = tuple(sorted(methods))
            raise MethodNotAllowed(f"{path[:200]} takes {', '.join(allowed)}, not {method[:20]}", allowed)
        return Match(provider, endpoint, inner + mark + query, path_id)

    def _add(self, provider: Provider) -> None:
        patterns: dict[str, dict[str, Endpoint]] = {}
        for endpoint in provider.endpoints:
            if _ID in endpoint.path:
                patterns.setdefault(endpoint.path, {})[endpoint.method] = endpoint
            else:
                self._exact.setdefault((provider.name, endpoint.path), {})[endpoint.method] = endpoint
        self._patterns[provider.name] = [(_pattern(path), methods) for path, methods in patterns.items()]

    def _find(self, provider: Provider, path: str) -> tuple[dict[str, Endpoint] | None, str | None]:
        exact = self._exact.get((provider.name, path))
        if exact is not None:
            return exact, None
        for pattern, methods in self._patterns[provider.name]:
            found = pattern.fullmatch(path)
            if found is not None:
                return methods, found[1]
        return None, None

    def _hint(self, provider: Provider, path: str) -> str:
        """What may have been meant: most often a base URL is a part too short or too long."""
        if self._find(provider, f"/v1{path}")[0] is not None:
            return f"did you mean /v1{path[:200]}? Then the base URL lacks /v1"
        if path.startswith("/v1/v1/"):
            return "the base URL ends in /v1, and the client adds another"
        for other in self._providers.values():
            if self._find(other, path)[0] is not None:
                return f"did you mean /{other.prefix}{path[:200]}? Then the base URL lacks /{other.prefix}"
        return "docs/endpoints.md lists what is"


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("([^/]+)".join(re.escape(part) for part in path.split(_ID)))
