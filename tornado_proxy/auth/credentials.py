"""Finds the caller's token in a request's headers."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from tornado_proxy.auth.access_key import PREFIX as ACCESS_KEY_PREFIX
from tornado_proxy.auth.oauth.introspection import is_opaque
from tornado_proxy.auth.session_key import PREFIX as SESSION_KEY_PREFIX
from tornado_proxy.auth.unverified_token import is_jwt
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated

#: The header (lower case), and the start of the subprotocol, that name the project of a request.
PROJECT_HEADER = "meshagent-project-id"
PROJECT_SUBPROTOCOL = "meshagent-project-id."

SUBPROTOCOL_HEADER = "sec-websocket-protocol"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential and the header (lower case) that carried it; `malformed` is the fault of one that is no token."""

    header: str
    token: str = field(repr=False)
    malformed: str | None = None


def find_token(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...], *, opaque: bool = False) -> str:
    """Return the token of a request.

    `authorization` carries `Bearer <token>`, any other header the token itself.  An empty header counts as missing:
    SDKs send one if no key is set.  Of two credentials that differ, the one with the form of a token of ours counts.

    Args:
        headers: The (name, value) pairs of the request.
        accepted: The headers that can carry a token, in lower case.
        opaque: True if opaque access tokens are accepted, so that their form is one of ours too.

    Raises:
        NotAuthenticated: The token is missing or malformed, a header occurs twice, or two headers carry different
            tokens of which none or both have the form of ours.
    """
    return choose_token(_read_headers(headers, accepted), accepted, opaque=opaque)


def find_websocket_token(
    headers: Iterable[tuple[str, str]],
    accepted: tuple[str, ...],
    token_prefix: str | None,
    *,
    opaque: bool = False,
) -> str:
    """Return the token of a WebSocket upgrade: in a header, as in any request, or in a subprotocol.

    Args:
        headers: The (name, value) pairs of the request.
        accepted: The headers that can carry a token, in lower case.
        token_prefix: The start of a subprotocol that carries a token, a convention of the provider's clients: browsers
            cannot set other headers on a WebSocket.  None if the provider has no such convention.
        opaque: True if opaque access tokens are accepted.

    Raises:
        NotAuthenticated: As in find_token(), with the subprotocol as one more header.
    """
    pairs = list(headers)
    found = _read_headers(pairs, accepted)
    if token_prefix is not None:
        subprotocols = ",".join(value for name, value in pairs if name.lower() == SUBPROTOCOL_HEADER)
        offered = find_subprotocol_token(subprotocols, token_prefix)
        if offered is not None:
            found.append(Credential(SUBPROTOCOL_HEADER, offered))
    return choose_token(found, accepted, opaque=opaque)


def find_subprotocol_token(value: str | None, token_prefix: str) -> str | None:
    """Return the token in the value of a `Sec-WebSocket-Protocol` header, or None if it holds none.

    Raises:
        NotAuthenticated: The header holds two different tokens.
    """
    protocols = [protocol.strip() for protocol in (value or "").split(",")]
    tokens = [protocol.removeprefix(token_prefix) for protocol in protocols if protocol.startswith(token_prefix)]
    found = [Credential(SUBPROTOCOL_HEADER, token) for token in tokens if token]
    return choose_token(found, ()) if found else None


def list_stated_projects(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return every project id that a request states, in lower case and the order of the headers.

    A browser, which cannot set headers on a WebSocket, states the project in a subprotocol.
    """
    stated: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower == PROJECT_HEADER:
            stated.append(value.strip().lower())
        elif lower == SUBPROTOCOL_HEADER:
            protocols = [protocol.strip() for protocol in value.split(",")]
            stated.extend(
                protocol.removeprefix(PROJECT_SUBPROTOCOL).lower()
                for protocol in protocols
                if protocol.startswith(PROJECT_SUBPROTOCOL)
            )
    return tuple([project for project in stated if project]) if stated else ()


def require_project(stated: Iterable[str], project_id: str) -> None:
    """Check that every project id that a request states is the project of its credential.

    Args:
        stated: The project ids, from list_stated_projects().
        project_id: The project of the credential.

    Raises:
        NotAllowed: The request states another project: it would be billed to a project that its sender did not mean.
    """
    if any(project != project_id.lower() for project in stated):
        raise NotAllowed(
            "Meshagent-Project-Id is not the project of the token; send the token's own project, or no header",
            code="project_mismatch",
        )


def has_own_form(token: str) -> bool:
    """Return True if `token` has the form of a token that this program issues or accepts: a JWT, or a key of ours.

    The provider's own short-lived keys start with `ek_` too, but have no dot.
    """
    if token.startswith(SESSION_KEY_PREFIX):
        return "." in token
    return token.startswith(ACCESS_KEY_PREFIX) or is_jwt(token)


def choose_token(found: list[Credential], accepted: tuple[str, ...], *, opaque: bool = False) -> str:
    """Return the token that counts; `accepted` are the headers that an error message names.

    `opaque` is True if opaque access tokens are accepted; such a token counts if no other token of our form is there.

    Developers' tools add leftovers: a provider key in the environment, the bearer of a local proxy.  Only one
    credential that has the form of ours may be among them, because two programs could choose differently between two.

    Raises:
        NotAuthenticated: There is no token, or two differ and the form does not decide between them.
    """
    if not found:
        forms = " or ".join("Authorization: Bearer <token>" if name == "authorization" else name for name in accepted)
        raise NotAuthenticated(f"no credential; send a participant token or an OAuth access token as {forms}")
    if len(found) > 1 and not _are_equal(found):
        well_formed = [credential for credential in found if credential.malformed is None]
        own = [credential for credential in well_formed if has_own_form(credential.token)]
        if not own and opaque:
            own = [credential for credential in well_formed if is_opaque(credential.token)]
        if own and not _are_equal(own):
            raise NotAuthenticated(f"two different tokens were sent, {_name_headers(own)}; send one")
        found = own or found
    for credential in found:
        if credential.malformed is not None:
            raise NotAuthenticated(credential.malformed)
    if len(found) > 1 and not _are_equal(found):
        raise NotAuthenticated(f"two different credentials were sent, {_name_headers(found)}; send one")
    return found[0].token


def _read_headers(headers: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> list[Credential]:
    found = [(name.lower(), value.strip()) for name, value in headers if name.lower() in accepted]
    for name in accepted if len(found) > 1 else ():
        # RFC 9110 section 5.3: a field that is not a list must occur once.  Programs disagree on which of two lines
        # counts, so a load balancer in front of the proxy could check one token and the proxy use the other.
        if sum(found_name == name for found_name, _ in found) > 1:
            raise NotAuthenticated(f"header {name} was sent more than once; send it once")
    credentials = [
        _parse_bearer(value) if name == "authorization" else Credential(name, value) for name, value in found
    ]
    return [credential for credential in credentials if credential.token]


def _parse_bearer(value: str) -> Credential:
    """Return the credential of an Authorization header (RFC 6750 section 2.1); its token is "" if it has none."""
    scheme, _, token = value.partition(" ")
    if scheme and scheme.lower() != "bearer":
        return Credential("authorization", value, "invalid Authorization header; it must be: Bearer <token>")
    return Credential("authorization", token.strip())


def _are_equal(found: list[Credential]) -> bool:
    first = _encode(found[0].token)
    # Constant time, like every comparison of secrets.
    return all(hmac.compare_digest(first, _encode(credential.token)) for credential in found[1:])


def _name_headers(found: list[Credential]) -> str:
    names = list(dict.fromkeys(credential.header for credential in found))
    return f"in {' and '.join(names)}" if len(names) > 1 else f"both in {names[0]}"


def _encode(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
