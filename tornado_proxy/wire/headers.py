"""Filters headers in both directions.

Headers are (name, value) pairs; order and spelling do not change.  Request headers pass an allow-list, because an
unknown header can hold a secret.  Response headers pass unless they are on a deny-list.  Hop-by-hop headers, headers
that `Connection` names, and pairs that are not valid header fields never pass.

Sources: RFC 9110 sections 5.1 (names), 5.5 (values) and 7.6.1 (Connection); RFC 9112 section 9 (connections).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter

Pairs = Sequence[tuple[str, str]]

#: Headers of one connection, not of the message (RFC 9110 section 7.6.1), and names that old programs use for them.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

#: Credentials, and headers that describe the client's network.  They never pass, even if `forward_headers` names them.
PRIVATE = frozenset(
    {
        "api-key",
        "authentication",
        "authorization",
        "client-ip",
        "cookie",
        "cookie2",
        "forwarded",
        "host",
        "private-token",
        "true-client-ip",
        "via",
        "x-access-token",
        "x-api-key",
        "x-auth-token",
        "x-authorization",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-csrf-token",
        "x-id-token",
        "x-real-ip",
        "x-xsrf-token",
    }
)
#: Prefixes of such headers, as browsers, CDNs, cloud load balancers and authentication proxies add them.
PRIVATE_PREFIXES = (
    "cf-",
    "fastly-",
    "meshagent-",
    "proxy-",
    "sec-",
    "x-amz-",
    "x-amzn-",
    "x-auth-request-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-",
    "x-meshagent-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-original-",
)

#: Request headers that the proxy sets itself.
_SET_BY_PROXY = frozenset({"accept-encoding", "content-length", "expect"})

#: Response headers about the provider's site, which a browser would apply to the proxy's origin; and our own request
#: id, which a provider behind another proxy of this kind sends too.
_SITE_HEADERS = frozenset({"alt-svc", "llm-proxy-request-id", "set-cookie", "set-cookie2"})
_SITE_PREFIXES = ("access-control-",)

#: Response headers that describe the exact bytes of the body; wrong once the body is edited (RFC 9530, RFC 1864).
_BODY_HEADERS = frozenset({"content-digest", "content-length", "content-md5", "digest", "repr-digest"})

#: RFC 9110 section 5.6.2 `token`.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Characters that no field value can hold (RFC 9110 section 5.5): a line end in a value would start another header.
_INVALID_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Values of `Connection` that name no header which could pass.
_USUAL_CONNECTIONS = frozenset({"keep-alive", "Keep-Alive", "close"})

#: Names of a head for which decisions are cached: twice as many as clients and providers send.  A head can have ten
#: thousand, and would take half a megabyte in each cache.
MAX_CACHED_NAMES = 64

_get_name, _get_value = itemgetter(0), itemgetter(1)

#: For each header True if it passes; and the places of those named Connection.
_Choice = tuple[tuple[bool, ...], tuple[int, ...]]


def filter_request_headers(
    pairs: Pairs, *, allowed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]
) -> list[tuple[str, str]]:
    """Return the request headers that are sent to the provider.

    Args:
        pairs: The client's request headers.
        allowed: Names of the allow-list, in lower case.
        prefixes: Prefixes of the allow-list, in lower case.
        withheld: Names that never pass, even if the allow-list matches them; in lower case.
    """
    names = tuple(map(_get_name, pairs))
    choose = _choose_for_provider if len(names) <= MAX_CACHED_NAMES else _choose_for_provider.__wrapped__
    return _drop_invalid(pairs, *choose(names, allowed, prefixes, withheld))


def filter_response_headers(
    pairs: Pairs, *, account_headers: frozenset[str], prefixes: tuple[str, ...] = (), keep_length: bool = True
) -> list[tuple[str, str]]:
    """Return the response headers that are sent to the client.

    Args:
        pairs: The provider's response headers.
        account_headers: Names of headers that identify the provider account, in lower case; they never pass.
        prefixes: Prefixes of further headers that do not pass, in lower case.
        keep_length: False if the body is edited, so that its length and digests differ from the provider's.
    """
    names = tuple(map(_get_name, pairs))
    choose = _choose_for_client if len(names) <= MAX_CACHED_NAMES else _choose_for_client.__wrapped__
    return _drop_invalid(pairs, *choose(names, account_headers, prefixes, keep_length))


# A client or provider sends the same few names in the same order, so the decision on all of them is cached.  The caches
# are bounded, because clients and providers choose the names.


@lru_cache(maxsize=128)
def _choose_for_provider(
    names: tuple[str, ...], allowed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]
) -> _Choice:
    """Return which of the request headers pass."""
    dropped = HOP_BY_HOP | PRIVATE | _SET_BY_PROXY | withheld

    def passes(name: str) -> bool:
        in_list = name in allowed or name.startswith(prefixes)
        return in_list and name not in dropped and not name.startswith(PRIVATE_PREFIXES)

    return _choose(names, passes)


@lru_cache(maxsize=128)
def _choose_for_client(
    names: tuple[str, ...],
    account_headers: frozenset[str],
    prefixes: tuple[str, ...],
    keep_length: bool,  # noqa: FBT001  # a positional argument is a cheaper cache key
) -> _Choice:
    """Return which of the response headers pass."""
    dropped = HOP_BY_HOP | _SITE_HEADERS | account_headers | (frozenset() if keep_length else _BODY_HEADERS)
    return _choose(names, lambda name: name not in dropped and not name.startswith(_SITE_PREFIXES + prefixes))


def _choose(names: tuple[str, ...], passes: Callable[[str], bool]) -> _Choice:
    """Return which of `names` are valid and pass, and where `Connection` is; `passes` gets them in lower case."""
    passing = tuple(_TOKEN.fullmatch(name) is not None and passes(name.lower()) for name in names)
    return passing, tuple(at for at, name in enumerate(names) if name.strip().lower() == "connection")


def _drop_invalid(pairs: Pairs, passing: tuple[bool, ...], connections: tuple[int, ...]) -> list[tuple[str, str]]:
    """Return the pairs that are `passing`, without those that `Connection` names and those whose value is invalid."""
    passed = list(compress(pairs, passing))
    named: frozenset[str] = frozenset()
    for at in connections:
        named |= _list_names(pairs[at][1])
    # One look at all values: nearly every request has nothing to drop.
    if not named and "".join(map(_get_value, passed)).isprintable():
        return passed
    return [
        (name, value) for name, value in passed if name.lower() not in named and not _INVALID_IN_VALUE.search(value)
    ]


def _list_names(value: str) -> frozenset[str]:
    """Return the names in a value of `Connection` that could pass otherwise."""
    if value in _USUAL_CONNECTIONS:
        return frozenset()
    return frozenset([token.strip().lower() for token in value.split(",")]) - HOP_BY_HOP - {"close"}
