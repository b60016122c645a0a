"""Filters headers in both directions.

Headers are (name, value) pairs; order and spelling do not change.  Request headers pass an allow-list, because an
unknown header can hold a secret.  Response headers pass unless they are on a deny-list.  Hop-by-hop headers, headers
that `Connection` names, and pairs that are not valid header fields never pass.

Sources: RFC 9110 sections 5.1 (names), 5.5 (values) and 7.6.1 (Connection); RFC 9112 section 9 (connections).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter

Pairs = Iterable[tuple[str, str]]

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
_NO_NAMES: frozenset[str] = frozenset()
_get_value = itemgetter(1)


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
    passed: list[tuple[str, str]] = []
    named = _NO_NAMES
    for pair in pairs:
        if _passes_upstream(pair[0], allowed, prefixes, withheld):
            passed.append(pair)
        elif _is_connection(pair[0]):
            named |= _list_names(pair[1])
    return _drop_invalid(passed, named)


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
    passed: list[tuple[str, str]] = []
    named = _NO_NAMES
    for pair in pairs:
        if _passes_to_client(pair[0], account_headers, prefixes, keep_length):
            passed.append(pair)
        elif _is_connection(pair[0]):
            named |= _list_names(pair[1])
    return _drop_invalid(passed, named)


# Every request has the same few dozen names, so the decision on a name is cached.  The caches are bounded, because a
# client chooses the names.


@lru_cache(maxsize=1024)
def _is_connection(name: str) -> bool:
    return name.strip().lower() == "connection"


@lru_cache(maxsize=1024)
def _passes_upstream(name: str, allowed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]) -> bool:
    key = name.lower()
    return (
        _TOKEN.fullmatch(name) is not None
        and (key in allowed or key.startswith(prefixes))
        and key not in HOP_BY_HOP | PRIVATE | _SET_BY_PROXY | withheld
        and not key.startswith(PRIVATE_PREFIXES)
    )


@lru_cache(maxsize=1024)
def _passes_to_client(name: str, account_headers: frozenset[str], prefixes: tuple[str, ...], keep_length: bool) -> bool:  # noqa: FBT001  # a positional argument is a cheaper cache key
    key = name.lower()
    dropped = HOP_BY_HOP | _SITE_HEADERS | account_headers | (frozenset() if keep_length else _BODY_HEADERS)
    return _TOKEN.fullmatch(name) is not None and key not in dropped and not key.startswith(_SITE_PREFIXES + prefixes)


def _drop_invalid(pairs: list[tuple[str, str]], named: frozenset[str]) -> list[tuple[str, str]]:
    """Return `pairs` without those that `Connection` names and those whose value is no field value."""
    # One search over all values: nearly every request has nothing to drop.
    if not named and not _INVALID_IN_VALUE.search("\t".join(map(_get_value, pairs))):
        return pairs
    return [(name, value) for name, value in pairs if name.lower() not in named and not _INVALID_IN_VALUE.search(value)]


def _list_names(value: str) -> frozenset[str]:
    """Return the names in a value of `Connection`."""
    return frozenset([token.strip().lower() for token in value.split(",")])
