"""Which headers go on, in both directions.

Works on (name, value) pairs; order and spelling stay as they came.  To a provider headers pass by an allow-list,
because one that is not known could be somebody's secret.  To a client they pass but for a drop-list.  Hop-by-hop
headers, and those that `Connection` names, never pass, nor does what cannot be written as a header.

Source: RFC 9110 sections 5.1 (names), 5.5 (values) and 7.6.1 (Connection), RFC 9112 section 9 (hop-by-hop).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

Pairs = Iterable[tuple[str, str]]

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

#: Credentials, and what speaks of the client's own network: never sent on, whatever the config adds.
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
    "x-ms-client-principal",
    "x-ms-token-",
    "x-original-",
)

#: What the server sets itself on the way to a provider.
_SET_HERE = frozenset({"accept-encoding", "content-length", "expect"})

#: Answer headers that speak of the provider's own site, not of the answer.
_SITE = frozenset({"alt-svc", "set-cookie", "set-cookie2"})
_SITE_PREFIXES = ("access-control-",)

#: True of the provider's bytes only: gone where the body is edited (RFC 9530; Content-MD5 is RFC 1864).
_OF_THE_BYTES = frozenset({"content-digest", "content-length", "content-md5", "digest", "repr-digest"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def to_upstream(
    pairs: Pairs, *, passed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]
) -> list[tuple[str, str]]:
    """The request headers that go to the provider.

    `passed` and `prefixes` (lower case) are the allow-list; `withheld` never pass, even when they match it.
    """
    pairs = list(pairs)
    kept_back = HOP_BY_HOP | PRIVATE | _SET_HERE | withheld | _named_by_connection(pairs)
    return [
        (name, value)
        for name, key, value in _well_formed(pairs)
        if (key in passed or key.startswith(prefixes)) and key not in kept_back and not key.startswith(PRIVATE_PREFIXES)
    ]


def to_client(pairs: Pairs, *, account: frozenset[str], keep_length: bool = True) -> list[tuple[str, str]]:
    """The answer headers that go to the client.

    `account` (lower case) would name the provider account.  `keep_length` is False where the body will be edited: its
    length and digests are not the provider's then.
    """
    pairs = list(pairs)
    dropped = HOP_BY_HOP | _SITE | account | _named_by_connection(pairs)
    if not keep_length:
        dropped |= _OF_THE_BYTES
    return [
        (name, value)
        for name, key, value in _well_formed(pairs)
        if key not in dropped and not key.startswith(_SITE_PREFIXES)
    ]


def _well_formed(pairs: Pairs) -> Iterator[tuple[str, str, str]]:
    """(name, lower-case name, value) of what may be written as a header.

    A name with a blank or a non-ASCII letter would slip past a list of names; a line end in a value would begin another
    header.
    """
    for name, value in pairs:
        key = _key(name)
        if key is not None and not _NO_VALUE.search(value):
            yield name, key, value


@lru_cache(maxsize=1024)  # the same few dozen names come with every request
def _key(name: str) -> str | None:
    """The name in lower case; None for what is no name."""
    return name.lower() if _TOKEN.fullmatch(name) else None


def _named_by_connection(pairs: Pairs) -> frozenset[str]:
    named = [value for name, value in pairs if name.strip().lower() == "connection"]
    return frozenset(token.strip().lower() for value in named for token in value.split(","))
