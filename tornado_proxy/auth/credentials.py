"""Finds the caller's token in a request's headers."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from tornado_proxy.domain.errors import NotAuthenticated

#: How a browser, which cannot set headers on a WebSocket, brings its token (OpenAI's own convention).
_SUBPROTOCOL = "openai-insecure-api-key."


def find_token(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> str:
    """The token that the request brings in one of the `accepted` headers (lower case).

    `authorization` carries `Bearer <token>`, any other header the token itself.

    Raises:
        NotAuthenticated: there is none, it is malformed, or two of them differ.
    """
    tokens = [
        _bearer(value) if name.lower() == "authorization" else value.strip()
        for name, value in headers
        if name.lower() in accepted
    ]
    return only_one([token for token in tokens if token], accepted)


def subprotocol_token(value: str | None) -> str | None:
    """The token in a `Sec-WebSocket-Protocol` header, None where it holds none."""
    for protocol in (value or "").split(","):
        if protocol.strip().startswith(_SUBPROTOCOL):
            return protocol.strip().removeprefix(_SUBPROTOCOL)
    return None


def only_one(tokens: list[str], accepted: tuple[str, ...]) -> str:
    """The one token that all of `tokens` are.

    Raises:
        NotAuthenticated: there is none, or two of them differ.
    """
    if not tokens:
        ways = " or ".join("Authorization: Bearer <token>" if name == "authorization" else name for name in accepted)
        raise NotAuthenticated(f"no credential: send a participant token as {ways}")
    first = tokens[0].encode()
    if not all(hmac.compare_digest(first, token.encode()) for token in tokens[1:]):
        raise NotAuthenticated("two credentials that differ were sent; send one")
    return tokens[0]


def _bearer(value: str) -> str:
    scheme, _, token = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("the Authorization header must read: Bearer <token>")
    return token.strip()
