"""Reads the response of an introspection endpoint (RFC 7662)."""

from __future__ import annotations

import re
from datetime import datetime

from tornado_proxy.auth.oauth.claims import VerifiedUser, check_audience, check_time, read_user
from tornado_proxy.auth.unverified_token import MAX_TOKEN_CHARACTERS, read_json_object
from tornado_proxy.auth.validity import read_validity
from tornado_proxy.domain.config.oauth import OAuthIssuer
from tornado_proxy.domain.errors import NotAuthenticated

#: A token that is no JWT (RFC 6750 section 2.1, without the dot).
_OPAQUE_TOKEN = re.compile(r"[A-Za-z0-9\-_~+/]+=*")

#: The start of keys that are never shown to an issuer: those of providers, our session and access keys, the bearer of a
#: local proxy.
_FOREIGN_PREFIXES = ("sk-", "ek_", "tp_", "tpl_")

#: A project API key (auth/api_key.py), which a developer can send by mistake.
_API_KEY = re.compile(r"ma-[A-Za-z0-9_.]{22}-[A-Za-z0-9_.]{22}-")


def is_opaque(token: str) -> bool:
    """Return True if `token` has the form of an opaque access token, which may be shown to its issuer."""
    return (
        len(token) <= MAX_TOKEN_CHARACTERS
        and _OPAQUE_TOKEN.fullmatch(token) is not None
        and not token.startswith(_FOREIGN_PREFIXES)
        and _API_KEY.match(token) is None
    )


def read_introspection(body: bytes, issuer: OAuthIssuer, now: datetime) -> VerifiedUser | None:
    """Return the user of the token that was introspected, None if the token is not active.

    Raises:
        ValueError: The response has another form.
        NotAuthenticated: The token is active, but no access token, expired, or for another audience or client.
        InsufficientScope: The token lacks the scope of the issuer.
    """
    claims = read_json_object(body)
    active = claims.get("active")
    if not isinstance(active, bool):
        raise ValueError("the introspection response has no member active")  # noqa: TRY004  # a response, no argument
    if not active:
        return None
    # A refresh token is active too, and has no type (seen with oidc-provider 9).
    token_type = claims.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise NotAuthenticated("the credential is no bearer access token (token_type); send the access token")
    validity = read_validity(claims)
    check_time(validity, now)
    if claims.get("iss", issuer.name) != issuer.name:
        raise NotAuthenticated("access token is from another issuer (iss); log in again")
    if "aud" in claims:
        check_audience(claims, issuer)
    return VerifiedUser(read_user(claims, issuer), validity)
