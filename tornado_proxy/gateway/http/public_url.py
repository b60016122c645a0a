"""The URLs that the proxy writes into responses: where the client reaches it, and provider redirects turned to it.

own root    listen.public_url; else the scheme, host and path prefix that a trusted proxy states, in `Forwarded`
            (RFC 7239) or X-Forwarded-*; else those of the request itself
Location    at the provider: the same path here; elsewhere: none, because SDKs follow it with the client's token
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from tornado_proxy.config.settings import PublicSettings
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.providers.contract import Endpoint

#: A host and optional port that can be written into a URL inside JSON.
_HOST = re.compile(r"[A-Za-z0-9._\-]+(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?")

#: A path prefix of plain segments, without `.` and `..`.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")

#: A URL without characters that browsers and libraries read differently: a backslash, controls, spaces.
_PLAIN_URL = re.compile(r"[!-\[\]-~]+")

#: One pair of a `Forwarded` element: name=token or name="quoted string" (RFC 7239 section 4).
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(?:;|$)')

_DEFAULT_PORTS = {"http": 80, "https": 443}


def own_root(request: IncomingRequest, public: PublicSettings) -> str:
    """Return the URL under which the client reaches the proxy, without a final slash; "" if no header states a host."""
    if public.url is not None:
        return public.url
    stated = _read_forwarded(request) if _is_trusted(request.peer, public) else {}
    host = stated.get("host", "")
    if not _HOST.fullmatch(host):
        host = request.header("host")
    if not _HOST.fullmatch(host):
        return ""
    scheme, prefix = stated.get("proto", "").lower(), stated.get("prefix", "").rstrip("/")
    shown = scheme if scheme in _DEFAULT_PORTS else request.scheme
    return f"{shown}://{host}{prefix if _PREFIX.fullmatch(prefix) else ''}"


def own_base_url(context: RequestContext[Endpoint]) -> str:
    """Return the URL under which the client reaches its provider here; only a path if no header states a host."""
    return f"{own_root(context.request, context.snapshot.settings.public)}/{context.provider.prefix}"


def own_location(context: RequestContext[Endpoint], base_url: str, location: str) -> str | None:
    """Return the Location of a provider's response as the client must see it, None if it leads elsewhere.

    Args:
        context: The request, whose path shows if the client uses the provider's prefix.
        base_url: The base URL at which the provider was reached.
        location: The provider's Location: a URL or a path.
    """
    if not _PLAIN_URL.fullmatch(location):
        return None
    base, url = _split(base_url), _split(location, base_url + context.upstream_target)
    if base is None or url is None or _origin(url) != _origin(base) or "@" in url.netloc:
        return None
    if not url.path.startswith(f"{base.path}/"):
        return None
    path = url.path.removeprefix(base.path)
    prefix = f"/{context.provider.prefix}"
    prefix = prefix if context.request.target.startswith(f"{prefix}/") else ""
    root = own_root(context.request, context.snapshot.settings.public)
    if location.startswith("/") or not urlsplit(location).netloc:
        root = urlsplit(root).path
    return f"{root}{prefix}{url._replace(scheme='', netloc='', path=path).geturl()}"


def _read_forwarded(request: IncomingRequest) -> Mapping[str, str]:
    """Return the `proto`, `host` and `prefix` that the proxies in front state; the first of a list is the client's."""
    stated = {
        name: request.header(f"x-forwarded-{name}").partition(",")[0].strip() for name in ("proto", "host", "prefix")
    }
    port = request.header("x-forwarded-port").partition(",")[0].strip()
    if stated["host"] and ":" not in stated["host"] and port.isascii() and port.isdigit():
        default = _DEFAULT_PORTS.get(stated["proto"].lower() or request.scheme)
        stated["host"] += "" if int(port[:5]) == default else f":{port}"
    element = request.header("forwarded").partition(",")[0]
    pairs = {name.lower(): quoted or token for name, quoted, token in _PAIR.findall(element)}
    return {**stated, **{name: pairs[name] for name in ("proto", "host") if name in pairs}}


def _is_trusted(peer: str, public: PublicSettings) -> bool:
    if not peer:
        return True  # a Unix socket has no address, and its other end is on this machine
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in public.trusted_proxies)


def _split(url: str, relative_to: str = "") -> SplitResult | None:
    try:
        parts = urlsplit(urljoin(relative_to, url))
        _ = parts.port
    except ValueError:  # an invalid IPv6 address or port
        return None
    return parts if parts.scheme in _DEFAULT_PORTS and parts.hostname else None


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _DEFAULT_PORTS[url.scheme]
