"""Finds the caller's token in a request's headers."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from tornado_proxy.domain.errors import NotAuthenticated

#: How a browser, which cannot set headers on a WebSocket, brings its token (OpenAI's own convention).
_SUBPROTOCOL = "openai-insecure-api-key."


def find_token(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> str:
    """The token that the request brings in one of the `accepted` headers (lower case).

    `authorization` carries `Bearer <token>`, any other header the token itself.  An empty header counts as none:
    clients send one for a key that is not set.

    Raises:
        NotAuthenticated: there is none, it is malformed, a header came twice, or two headers differ.
    """
    found = [(name.lower(), value.strip()) for name, value in headers if name.lower() in accepted]
    for name in accepted if len(found) > 1 else ():
        # RFC 9110 section 5.3: a field that is not a list stands once.  Which of two lines counts is a matter of taste,
        # and something between the client and here may have the other taste.
        if sum(name == one for one, _ in found) > 1:
            raise NotAuthenticated(f"the header {name} was sent more than once; send it once")
    tokens = [_bearer(value) if name == "authorization" else value for name, value in found]
    return only_one([token for token in tokens if token], accepted)


def find_socket_token(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> str:
    """The token that the upgrade to a WebSocket brings, in one of the `accepted` headers or among its subprotocols.

    Raises:
        NotAuthenticated: there is none, it is malformed, or two differ.
    """
    pairs = list(headers)
    offered = subprotocol_token(",".join(value for name, value in pairs if name.lower() == "sec-websocket-protocol"))
    if offered is None:
        return find_token(pairs, accepted)
    if not any(name.lower() in accepted and value.strip() for name, value in pairs):
        return offered
    return only_one([find_token(pairs, accepted), offered], accepted)


def subprotocol_token(value: str | None) -> str | None:
    """The token in a `Sec-WebSocket-Protocol` header, None where it holds none.

    Raises:
        NotAuthenticated: it holds two that differ.
    """
    protocols = [protocol.strip() for protocol in (value or "").split(",")]
    tokens = [protocol.removeprefix(_SUBPROTOCOL) for protocol in protocols if protocol.startswith(_SUBPROTOCOL)]
    tokens = [token for token in tokens if token]
    return only_one(tokens, ()) if tokens else None


def only_one(tokens: list[str], accepted: tuple[str, ...]) -> str:
    """The one token that all of `tokens` are.

    Raises:
        NotAuthenticated: there is none, or two of them differ.
    """
    if not tokens:
        ways = " or ".join("Authorization: Bearer <token>" if name == "authorization" else name for name in accepted)
        raise NotAuthenticated(f"no credential: send a participant token as {ways}")
    first = _bytes(tokens[0])
    if not all(hmac.compare_digest(first, _bytes(token)) for token in tokens[1:]):
        raise NotAuthenticated("two credentials that differ were sent; send one")
    return tokens[0]


def _bearer(value: str) -> str:
    """The token of an Authorization header (RFC 6750 section 2.1), "" where it holds none."""
    scheme, _, token = value.partition(" ")
    if not scheme:
        return ""
    if scheme.lower() != "bearer":
        raise NotAuthenticated("the Authorization header must read: Bearer <token>")
    return token.strip()


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
