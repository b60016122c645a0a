"""Finds the caller's token in a request's headers."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from tornado_proxy.domain.errors import NotAuthenticated


def find_token(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> str:
    """Return the token of a request.

    `authorization` carries `Bearer <token>`, any other header the token itself.  An empty header counts as missing:
    SDKs send one if no key is set.

    Args:
        headers: The (name, value) pairs of the request.
        accepted: The headers that can carry a token, in lower case.

    Raises:
        NotAuthenticated: The token is missing or malformed, a header occurs twice, or two headers carry different
            tokens.
    """
    found = [(name.lower(), value.strip()) for name, value in headers if name.lower() in accepted]
    for name in accepted if len(found) > 1 else ():
        # RFC 9110 section 5.3: a field that is not a list must occur once.  Programs disagree on which of two lines
        # counts, so a load balancer in front of the proxy could check one token and the proxy use the other.
        if sum(found_name == name for found_name, _ in found) > 1:
            raise NotAuthenticated(f"header {name} was sent more than once; send it once")
    tokens = [_parse_bearer(value) if name == "authorization" else value for name, value in found]
    return require_single_token([token for token in tokens if token], accepted)


def find_websocket_token(
    headers: Iterable[tuple[str, str]], accepted: tuple[str, ...], token_prefix: str | None
) -> str:
    """Return the token of a WebSocket upgrade: in a header, as in any request, or in a subprotocol.

    Args:
        headers: The (name, value) pairs of the request.
        accepted: The headers that can carry a token, in lower case.
        token_prefix: The start of a subprotocol that carries a token, a convention of the provider's clients: browsers
            cannot set other headers on a WebSocket.  None if the provider has no such convention.

    Raises:
        NotAuthenticated: The token is missing or malformed, or two different tokens were sent.
    """
    pairs = list(headers)
    if token_prefix is None:
        return find_token(pairs, accepted)
    subprotocols = ",".join(value for name, value in pairs if name.lower() == "sec-websocket-protocol")
    offered = find_subprotocol_token(subprotocols, token_prefix)
    if offered is None:
        return find_token(pairs, accepted)
    if not any(name.lower() in accepted and value.strip() for name, value in pairs):
        return offered
    return require_single_token([find_token(pairs, accepted), offered], accepted)


def find_subprotocol_token(value: str | None, token_prefix: str) -> str | None:
    """Return the token in the value of a `Sec-WebSocket-Protocol` header, or None if it holds none.

    Raises:
        NotAuthenticated: The header holds two different tokens.
    """
    protocols = [protocol.strip() for protocol in (value or "").split(",")]
    tokens = [protocol.removeprefix(token_prefix) for protocol in protocols if protocol.startswith(token_prefix)]
    tokens = [token for token in tokens if token]
    return require_single_token(tokens, ()) if tokens else None


def require_single_token(tokens: list[str], accepted: tuple[str, ...]) -> str:
    """Return the token that all of `tokens` are equal to; `accepted` are the headers that an error message names.

    Raises:
        NotAuthenticated: There is no token, or two of them differ.
    """
    if not tokens:
        forms = " or ".join("Authorization: Bearer <token>" if name == "authorization" else name for name in accepted)
        raise NotAuthenticated(f"no credential; send a participant token as {forms}")
    first = _encode(tokens[0])
    # Constant time, like every comparison of secrets.
    if not all(hmac.compare_digest(first, _encode(token)) for token in tokens[1:]):
        raise NotAuthenticated("two different credentials were sent; send one")
    return tokens[0]


def _parse_bearer(value: str) -> str:
    """Return the token of an Authorization header (RFC 6750 section 2.1), "" if it has none."""
    scheme, _, token = value.partition(" ")
    if not scheme:
        return ""
    if scheme.lower() != "bearer":
        raise NotAuthenticated("invalid Authorization header; it must be: Bearer <token>")
    return token.strip()


def _encode(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
