"""The claims of an access token, or of the introspection of one, that decide whether its user is accepted.

Sources: RFC 9068 (JWT access tokens), RFC 7662 section 2.2 (introspection), RFC 8725 (JWT best current practices), and
for the names of claims the token references of Auth0, Entra ID, Keycloak and Okta.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tornado_proxy.auth.validity import Validity
from tornado_proxy.domain.config.oauth import ANY, OAuthIssuer
from tornado_proxy.domain.errors import InsufficientScope, NotAuthenticated
from tornado_proxy.domain.identity import MAX_NAME_CHARACTERS, OAuthUser

#: How far the clocks of an issuer and of this server may differ.
LEEWAY = timedelta(seconds=30)

#: The claims that can name the client: RFC 9068; Auth0 and Keycloak; Okta; Entra ID before version 2.
CLIENT_CLAIMS = ("client_id", "azp", "cid", "appid")

#: Claims that only ID tokens have (OpenID Connect Core sections 3.1.3.6 and 3.3.2.11).
_ID_TOKEN_CLAIMS = ("at_hash", "c_hash")

#: Values of claims with which Keycloak and Cognito mark tokens of other kinds: ID, refresh and logout tokens.
_TOKEN_KINDS = {"typ": frozenset({"bearer", "jwt", "at+jwt"}), "token_use": frozenset({"access", "access_token"})}

#: Groups of a user; Entra ID puts at most 200 into a token.
_MAX_GROUPS = 1000

#: Characters that a ledger or a terminal cannot hold: control characters and lone surrogates.
_INVALID_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_LOG_IN_AGAIN = "log in again"


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """The user of a valid access token, and the times of the token."""

    user: OAuthUser
    validity: Validity


def read_user(claims: Mapping[str, object], issuer: OAuthIssuer) -> OAuthUser:
    """Return the user of a token with these claims, whose signature or introspection is valid.

    Raises:
        NotAuthenticated: The token is of another kind, is bound to a key, or is for another client.
        InsufficientScope: The token lacks the scope of the issuer.
    """
    _check_kind(claims)
    client_id = _read_client(claims, issuer)
    subject = _read_text(claims, "sub")
    if not subject:
        raise NotAuthenticated(f"access token has no user (sub); {_LOG_IN_AGAIN}")
    _check_scope(claims, issuer)
    return OAuthUser(
        issuer=issuer.name,
        subject=subject,
        client_id=client_id,
        email=_read_email(claims, issuer),
        groups=_read_groups(claims.get(issuer.groups_claim)),
    )


def check_time(validity: Validity, now: datetime) -> None:
    """Raise NotAuthenticated unless a token is valid at `now`, aware UTC, within LEEWAY."""
    validity.check(now, expiry_leeway=LEEWAY, not_before_leeway=LEEWAY)


def check_audience(claims: Mapping[str, object], issuer: OAuthIssuer) -> None:
    """Raise NotAuthenticated unless `aud`, a text or a list of texts (RFC 7519 section 4.1.3), has our audience."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(name, str) for name in audiences) or issuer.audience not in audiences:
        raise NotAuthenticated(f"access token is for another audience (aud); request one for {issuer.audience}")


def _check_kind(claims: Mapping[str, object]) -> None:
    # RFC 7800, RFC 9449: such a token must come with a proof of its key, which a bearer does not send.
    if "cnf" in claims:
        raise NotAuthenticated("access token is bound to a key (cnf); request one without DPoP or mutual TLS")
    if any(name in claims for name in _ID_TOKEN_CLAIMS):
        raise NotAuthenticated("the credential is an ID token; send the access token")
    for name, accepted in _TOKEN_KINDS.items():
        kind = claims.get(name)
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in accepted):
            raise NotAuthenticated(f"the credential is no access token ({name}); send the access token")


def _read_client(claims: Mapping[str, object], issuer: OAuthIssuer) -> str:
    # The first claim alone: a token that names a registered client only in a later one was issued to another.
    name = next((name for name in CLIENT_CLAIMS if name in claims), None)
    client_id = _read_text(claims, name) if name is not None else None
    if ANY in issuer.clients:
        return client_id or ""
    if client_id is None or client_id not in issuer.clients:
        named = name or " or ".join(CLIENT_CLAIMS)
        raise NotAuthenticated(f"the OAuth client of the access token ({named}) is not registered with this server")
    return client_id


def _check_scope(claims: Mapping[str, object], issuer: OAuthIssuer) -> None:
    if issuer.scope == ANY:
        return
    if issuer.scope not in (*_list_texts(claims.get("scope")), *_list_texts(claims.get("scp"))):
        raise InsufficientScope(issuer.scope)


def _list_texts(value: object) -> tuple[str, ...]:
    """Return the parts of a scope: a text with spaces (RFC 6749 section 3.3), or a list as Okta writes it."""
    if isinstance(value, str):
        return tuple(value.split(" "))
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _read_email(claims: Mapping[str, object], issuer: OAuthIssuer) -> str | None:
    verified = claims.get("email_verified", True if issuer.trust_email else None)
    if verified is not True:
        return None
    return _read_text(claims, "email")


def _read_groups(value: object) -> frozenset[str]:
    groups = [value] if isinstance(value, str) else value
    if not isinstance(groups, list) or len(groups) > _MAX_GROUPS:
        return frozenset()
    return frozenset(group for group in groups if isinstance(group, str))


def _read_text(claims: Mapping[str, object], name: str) -> str | None:
    """Return the text of a claim, None if it is missing.

    Raises:
        NotAuthenticated: It is no text, too long, or has control characters, which records could not show.
    """
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS or _INVALID_TEXT.search(value):
        raise NotAuthenticated(
            f"access token {name} must be at most {MAX_NAME_CHARACTERS} characters of text; {_LOG_IN_AGAIN}"
        )
    return value
