"""Which headers go on, in both directions.

Works on (name, value) pairs; order and spelling stay as they came.  To a provider headers pass by an allow-list,
because one that is not known could be somebody's secret.  To a client they pass but for a drop-list.  Hop-by-hop
headers, and those that `Connection` names, never pass, nor does what cannot be written as a header.

Source: RFC 9110 sections 5.1 (names), 5.5 (values) and 7.6.1 (Connection), RFC 9112 section 9 (hop-by-hop).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
_NONE: frozenset[str] = frozenset()


def to_upstream(
    pairs: Pairs, *, passed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]
) -> list[tuple[str, str]]:
    """The request headers that go to the provider.

    `passed` and `prefixes` (lower case) are the allow-list; `withheld` never pass, even when they match it.
    """
    pairs = list(pairs)
    kept = [pair for pair in pairs if _goes_up(pair[0], passed, prefixes, withheld)]
    return _well_formed(kept, _named_by_connection(pairs))


def to_client(pairs: Pairs, *, account: frozenset[str], keep_length: bool = True) -> list[tuple[str, str]]:
    """The answer headers that go to the client.

    `account` (lower case) would name the provider account.  `keep_length` is False where the body will be edited: its
    length and digests are not the provider's then.
    """
    pairs = list(pairs)
    kept = [pair for pair in pairs if _goes_down(pair[0], account, keep_length)]
    return _well_formed(kept, _named_by_connection(pairs))


# The same few dozen names come with every request: each is looked at once.


@lru_cache(maxsize=1024)
def _is_connection(name: str) -> bool:
    return name.strip().lower() == "connection"


@lru_cache(maxsize=1024)
def _goes_up(name: str, passed: frozenset[str], prefixes: tuple[str, ...], withheld: frozenset[str]) -> bool:
    key = name.lower()
    return (
        _TOKEN.fullmatch(name) is not None
        and (key in passed or key.startswith(prefixes))
        and key not in HOP_BY_HOP | PRIVATE | _SET_HERE | withheld
        and not key.startswith(PRIVATE_PREFIXES)
    )


@lru_cache(maxsize=1024)
def _goes_down(name: str, account: frozenset[str], keep_length: bool) -> bool:  # noqa: FBT001  # lru_cache's way
    key = name.lower()
    dropped = HOP_BY_HOP | _SITE | account | (frozenset() if keep_length else _OF_THE_BYTES)
    return _TOKEN.fullmatch(name) is not None and key not in dropped and not key.startswith(_SITE_PREFIXES)


def _well_formed(pairs: list[tuple[str, str]], named: frozenset[str]) -> list[tuple[str, str]]:
    """What may be written: a line end in a value would begin another header."""
    if not named and not _NO_VALUE.search("\t".join([value for _, value in pairs])):
        return pairs
    return [(name, value) for name, value in pairs if name.lower() not in named and not _NO_VALUE.search(value)]


def _named_by_connection(pairs: list[tuple[str, str]]) -> frozenset[str]:
    named = [value for name, value in pairs if _is_connection(name)]
    return frozenset(token.strip().lower() for value in named for token in value.split(",")) if named else _NONE
