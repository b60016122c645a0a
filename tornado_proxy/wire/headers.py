"""Which headers go on, in both directions.  Works on (name, value) pairs; order and spelling stay as they came.

To a provider headers pass by an allow-list, because one that is not known could be somebody's secret.  To a client they
pass but for a drop-list.  Hop-by-hop headers, and those that `Connection` names, never pass.

Source: RFC 9110 section 7.6.1 (Connection), RFC 9112 section 9 (hop-by-hop).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Pairs = Iterable[tuple[str, str]]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
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
        "authorization",
        "cookie",
        "forwarded",
        "host",
        "sec-websocket-protocol",
        "via",
        "x-api-key",
        "x-real-ip",
    }
)
PRIVATE_PREFIXES = ("cf-", "meshagent-", "sec-", "x-amz-", "x-forwarded-", "x-goog-")

#: What the server sets itself on the way to a provider.
_SET_HERE = frozenset({"accept-encoding", "content-length", "expect"})

#: Answer headers that speak of the provider's own site, not of the answer.
_SITE = frozenset({"alt-svc", "set-cookie", "set-cookie2", "strict-transport-security"})
_SITE_PREFIXES = ("access-control-",)


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
        for name, key, value in _lowered(pairs)
        if (key in passed or key.startswith(prefixes)) and key not in kept_back and not key.startswith(PRIVATE_PREFIXES)
    ]


def to_client(pairs: Pairs, *, account: frozenset[str], keep_length: bool) -> list[tuple[str, str]]:
    """The answer headers that go to the client.

    `account` (lower case) would name the provider account.  `keep_length` is False where the body will be edited.
    """
    pairs = list(pairs)
    dropped = HOP_BY_HOP | _SITE | account | _named_by_connection(pairs)
    if not keep_length:
        dropped |= {"content-length"}
    return [
        (name, value)
        for name, key, value in _lowered(pairs)
        if key not in dropped and not key.startswith(_SITE_PREFIXES)
    ]


def _lowered(pairs: Pairs) -> Iterator[tuple[str, str, str]]:
    for name, value in pairs:
        yield name, name.lower(), value


def _named_by_connection(pairs: Pairs) -> frozenset[str]:
    named = [value for name, value in pairs if name.lower() == "connection"]
    return frozenset(token.strip().lower() for value in named for token in value.split(","))
