"""From a request's method and raw target to the endpoint that serves it.

Targets are matched as they came.  What another reader might take for another path (an encoded slash, `..`, `//`, a
backslash, a control character) is refused, never normalised: whoever normalises differently gets in between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tornado_proxy.domain.errors import BadRequest, MethodNotAllowed, NotFound
from tornado_proxy.providers.contract import Endpoint, Provider

#: Path segments of plain characters (RFC 3986 unreserved, and what ids hold); no percent-encoding at all.
_PLAIN_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:[/;]|$))[A-Za-z0-9_.~:@!$,;=+*'()-]+)+")
_PLAIN_QUERY = re.compile(r"[\x21-\x7e]*")

_ID = "{id}"


@dataclass(frozen=True, slots=True)
class Match:
    """A served request.  `upstream_target` is the provider's path and the query; `object_id` the `{id}` in the path."""

    provider: Provider
    endpoint: Endpoint
    upstream_target: str
    object_id: str | None = None


class RouteTable:
    """The endpoints of several providers.  The first provider also answers at the root."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = {provider.prefix: provider for provider in providers}
        self._default = providers[0]
        self._exact: dict[tuple[str, str], dict[str, Endpoint]] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], dict[str, Endpoint]]]] = {}
        #: Plain targets that have been matched; there are as many as endpoints, or twice that with the prefixes.
        self._matched: dict[tuple[str, str], Match] = {}
        for provider in providers:
            self._add(provider)

    def match(self, method: str, target: str) -> Match:
        """The endpoint for `method` and the raw request target (path, perhaps `?` and a query).

        Raises:
            BadRequest: the target could be read in two ways.
            NotFound: nothing is served there.
            MethodNotAllowed: something is, with other methods.
        """
        known = self._matched.get((method, target))
        if known is not None:
            return known
        match = self._match(method, target)
        if match.object_id is None and "?" not in target:
            self._matched[method, target] = match
        return match

    def provider_for(self, target: str) -> Provider:
        """The provider whose errors a request to `target` understands, served or not."""
        first = target.split("/", 2)[1] if target.startswith("/") and target.count("/") > 1 else ""
        return self._providers.get(first, self._default)

    def provider(self, name: str) -> Provider:
        """The provider of that name."""
        return next(provider for provider in self._providers.values() if provider.name == name)

    def endpoint(self, provider: str, method: str, path: str) -> Endpoint | None:
        """The endpoint at a provider's own path without an id, None where there is none."""
        return self._exact.get((provider, path), {}).get(method)

    def _match(self, method: str, target: str) -> Match:
        path, mark, query = target.partition("?")
        if not _PLAIN_PATH.fullmatch(path) or not _PLAIN_QUERY.fullmatch(query) or "#" in query:
            raise BadRequest(
                "the request target holds characters that are not taken here (encoded or empty path segments, dots, "
                "backslashes, control characters); write the path as the provider documents it",
                code="invalid_path",
            )
        provider = self.provider_for(target)
        inner = path.removeprefix(f"/{provider.prefix}") if path.startswith(f"/{provider.prefix}/") else path
        methods, object_id = self._find(provider, inner)
        if methods is None:
            raise NotFound(f"{path[:200]} is not served here; {self._hint(provider, inner)}")
        endpoint = methods.get(method)
        if endpoint is None:
            allowed = tuple(sorted(methods))
            raise MethodNotAllowed(f"{path[:200]} takes {', '.join(allowed)}, not {method[:20]}", allowed)
        return Match(provider, endpoint, inner + mark + query, object_id)

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
