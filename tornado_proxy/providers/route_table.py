"""Finds the endpoint of a request from its method and raw target.

Targets are matched as received.  A target that another parser could read as another path (an encoded slash, `..`, `//`,
a backslash, a control character) is rejected and never normalised: if two programs on the way of a request normalise
differently, a request passes the checks of one path and reaches another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from tornado_proxy.domain.errors import BadRequest, MethodNotAllowed, NotFound, UpgradeRequired
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint, Provider, WebSocketEndpoint

#: Path segments of plain characters (RFC 3986 unreserved and sub-delims, `:` and `@`) without percent-encoding.  A
#: segment `..;` is rejected like `..`, because some servers cut a segment at the semicolon.
_PLAIN_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:[/;]|$))[A-Za-z0-9_.~:@!$,;=+*'()-]+)+")

#: Printable ASCII without the space.  A query may be percent-encoded: it does not choose the endpoint.
_PLAIN_QUERY = re.compile(r"[\x21-\x7e]*")

_ID = "{id}"

#: The first segment of the providers' own paths, which many base URLs include and others lack.
_VERSION = "/v1"

#: Characters of a client's path, and of each of its segments, that an error message repeats.  No segment of an endpoint
#: is longer; a token in its place can have any form.
_MAX_SHOWN, _MAX_SHOWN_SEGMENT = 200, 24


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
    """The endpoints of several providers.  Paths without the prefix of a provider belong to the first."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._by_prefix = {provider.prefix: provider for provider in providers}
        self._by_name = {provider.name: provider for provider in providers}
        self._default = providers[0]
        self.providers = tuple(providers)
        self._exact: dict[tuple[str, str], dict[str, Endpoint]] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], dict[str, Endpoint]]]] = {}
        #: Matches of targets without an id and a query.  Clients cannot make it grow: it has a few entries for each
        #: endpoint, with the prefix and without, as GET and as HEAD.
        self._matched: dict[tuple[str, str], Match[Endpoint]] = {}
        #: Those of match_http(), which requests to a known path find here without a call.
        self.matched_http: dict[tuple[str, str], Match[HttpEndpoint]] = {}
        for provider in providers:
            self._add(provider)

    def match_http(self, method: str, target: str) -> Match[HttpEndpoint]:
        """Return the HTTP endpoint for `method` and the raw request target (path, perhaps `?` and a query).

        Raises:
            BadRequest: two parsers could read the target differently.
            NotFound: no endpoint has this path.
            MethodNotAllowed: the endpoint takes other methods.
            UpgradeRequired: the path is a WebSocket.
        """
        found = self.match(method, target)
        if isinstance(found.endpoint, WebSocketEndpoint):
            raise UpgradeRequired("this path is a WebSocket; connect to it with wss:// or ws://")
        match = cast("Match[HttpEndpoint]", found)
        if (method, target) in self._matched:
            self.matched_http[method, target] = match
        return match

    def match_websocket(self, target: str) -> Match[WebSocketEndpoint]:
        """Return the WebSocket endpoint at the raw request target.

        Raises:
            BadRequest: two parsers could read the target differently, or its path is not a WebSocket.
            NotFound: no endpoint has this path.
            MethodNotAllowed: the path takes no GET.
        """
        match = self.match("GET", target)
        if isinstance(match.endpoint, HttpEndpoint):
            raise BadRequest("this path is no WebSocket; send a plain HTTP request", code="no_websocket")
        return cast("Match[WebSocketEndpoint]", match)

    def match(self, method: str, target: str) -> Match[Endpoint]:
        """Return the endpoint for `method` and the raw request target.

        Raises:
            BadRequest: two parsers could read the target differently.
            NotFound: no endpoint has this path.
            MethodNotAllowed: the endpoint takes other methods.
        """
        cached = self._matched.get((method, target))
        if cached is not None:
            return cached
        match = self._match(method, target)
        if match.path_id is None and "?" not in target:
            self._matched[method, target] = match
        return match

    def find_provider(self, target: str) -> Provider:
        """Return the provider whose error format a request to `target` expects, also if no endpoint has its path."""
        first = target.split("/", 2)[1] if target.startswith("/") and target.count("/") > 1 else ""
        return self._by_prefix.get(first, self._default)

    def get_provider(self, name: str) -> Provider:
        """Return the provider with this name.

        Raises:
            KeyError: no provider has it.
        """
        return self._by_name[name]

    def find_http_endpoint(self, provider: str, method: str, path: str) -> HttpEndpoint | None:
        """Return the HTTP endpoint at a provider's own path without an id, None if no endpoint has it."""
        endpoint = self._exact.get((provider, path), {}).get(method)
        return endpoint if isinstance(endpoint, HttpEndpoint) else None

    def find_template(self, target: str) -> str:
        """Return the path of `target` with the client's prefix and `{id}` for an id, "unknown" if it is not served."""
        provider, prefix, own_path = self._split(target.partition("?")[0])
        by_method, _ = self._find(provider, own_path)
        return "unknown" if by_method is None else prefix + next(iter(by_method.values())).path

    def _split(self, path: str) -> tuple[Provider, str, str]:
        """Return the provider of a path, the prefix in the path ("" for none) and the provider's own path."""
        provider = self.find_provider(path)
        prefix = f"/{provider.prefix}"
        if not path.startswith(f"{prefix}/"):
            return provider, "", path
        own_path = path.removeprefix(prefix)
        if provider.optional_version and self._find(provider, own_path)[0] is None:
            versioned = _VERSION + own_path
            own_path = versioned if self._find(provider, versioned)[0] is not None else own_path
        return provider, prefix, own_path

    def _match(self, method: str, target: str) -> Match[Endpoint]:
        path, mark, query = target.partition("?")
        if not _PLAIN_PATH.fullmatch(path) or not _PLAIN_QUERY.fullmatch(query) or "#" in query:
            raise BadRequest(
                _describe_slashes(path)
                or "the request target contains characters that are not allowed (encoded or empty path segments, dots, "
                "backslashes, control characters); write the path as the provider documents it",
                code="invalid_path",
            )
        provider, prefix, own_path = self._split(path)
        by_method, path_id = self._find(provider, own_path)
        if by_method is None:
            raise NotFound(f"{_show(path)} is not served here; {self._suggest(provider, prefix, own_path)}")
        # RFC 9110 section 9.3.2: HEAD is GET without the body.  It goes to the provider as GET.
        endpoint = by_method.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = tuple(sorted({*by_method, *(("HEAD",) if "GET" in by_method else ())}))
            message = f"{_show(path)} takes {', '.join(allowed)}, not {method[:20]}"
            raise MethodNotAllowed(message, allowed)
        return Match(provider, endpoint, own_path + mark + query, path_id)

    def _add(self, provider: Provider) -> None:
        patterns: dict[str, dict[str, Endpoint]] = {}
        for endpoint in provider.endpoints:
            if _ID in endpoint.path:
                patterns.setdefault(endpoint.path, {})[endpoint.method] = endpoint
            else:
                self._exact.setdefault((provider.name, endpoint.path), {})[endpoint.method] = endpoint
        self._patterns[provider.name] = [(_compile(path), by_method) for path, by_method in patterns.items()]

    def _find(self, provider: Provider, path: str) -> tuple[dict[str, Endpoint] | None, str | None]:
        """Return the endpoints at `path` by method, and the id in the path; (None, None) if no endpoint has it."""
        # Exact paths come first: /v1/responses/compact is not the response with the id "compact".
        exact = self._exact.get((provider.name, path))
        if exact is not None:
            return exact, None
        for pattern, by_method in self._patterns[provider.name]:
            found = pattern.fullmatch(path)
            if found is not None:
                return by_method, found[1]
        return None, None

    def _suggest(self, provider: Provider, prefix: str, path: str) -> str:
        """Return advice for an unknown path.  The usual cause is a base URL with a segment too few or too many."""
        if path.startswith(f"{_VERSION}{_VERSION}/"):
            return f"the base URL ends in {_VERSION}, and the client adds another"
        if self._find(provider, _VERSION + path)[0] is not None:
            return f"did you mean {prefix}{_VERSION}{_show(path)}? Then the base URL lacks {_VERSION}"
        for other in self._by_prefix.values():
            for own_path in (path, _VERSION + path):
                if self._find(other, own_path)[0] is not None:
                    return (
                        f"did you mean /{other.prefix}{_show(own_path)}? {other.title}'s API is served under "
                        f"/{other.prefix}"
                    )
        return "GET / lists the base URLs"


def _show(path: str) -> str:
    """Return a client's path as an error message repeats it, `...` for a segment that can hold a token."""
    segments = path[:_MAX_SHOWN].split("/")
    return "/".join(segment if len(segment) <= _MAX_SHOWN_SEGMENT else "..." for segment in segments)


def _describe_slashes(path: str) -> str | None:
    """Return advice for a path with a slash too many, which an SDK writes for a base URL that ends in one."""
    if "//" in path:
        return "remove the double slash from the path; a base URL must not end in a slash"
    if path.endswith("/") and path != "/":
        return "remove the trailing slash from the path"
    return None


def _compile(path: str) -> re.Pattern[str]:
    """Return the pattern of a path with `{id}`; group 1 is the id."""
    return re.compile("([^/]+)".join(re.escape(part) for part in path.split(_ID)))
