"""Verifies OAuth access tokens that are JWTs (RFC 9068, RFC 8725).

The issuer's keys are those of the configuration and its own key set alone: `jku`, `x5u`, `jwk` and `x5c` in a header
are ignored, because the sender of a token writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt

from tornado_proxy.auth.oauth.claims import VerifiedUser, check_audience, check_time, read_user
from tornado_proxy.auth.oauth.key_set import KEY_TYPES, VerificationKey
from tornado_proxy.auth.unverified_token import UnverifiedToken
from tornado_proxy.auth.validity import read_validity
from tornado_proxy.domain.config.oauth import OAuthIssuer
from tornado_proxy.domain.errors import NotAuthenticated

#: The accepted values of `typ` in the header, in lower case: media types ignore case (RFC 9068 section 4).
_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})

#: PyJWT checks the signature only: it reads the system clock, while the time is an argument here.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True)
class AccessTokenHeader:
    """The header of an access token, as far as it selects a key, and the issuer that it claims to be from."""

    algorithm: str
    key_id: str
    issuer: str


def is_access_token(token: UnverifiedToken) -> bool:
    """Return True if `alg` is one of access tokens: the kind of a token is decided by it alone."""
    algorithm = token.header.get("alg")
    return isinstance(algorithm, str) and algorithm in KEY_TYPES


def read_header(token: UnverifiedToken) -> AccessTokenHeader:
    """Return the header of an access token.

    Raises:
        NotAuthenticated: The token is of another type, or does not name its key or issuer.
    """
    token_type = token.header.get("typ")
    if token_type is not None and (not isinstance(token_type, str) or token_type.lower() not in _TYPES):
        raise NotAuthenticated("token type (typ) is not that of an access token; send the access token")
    key_id, issuer = token.header.get("kid"), token.claims.get("iss")
    if not isinstance(key_id, str) or not key_id:
        raise NotAuthenticated("access token does not name its signing key (kid in its header); log in again")
    if not isinstance(issuer, str):
        raise NotAuthenticated("access token does not name its issuer (iss); log in again")
    return AccessTokenHeader(str(token.header["alg"]), key_id, issuer)


def verify(
    token: str, unverified: UnverifiedToken, key: VerificationKey, issuer: OAuthIssuer, now: datetime
) -> VerifiedUser:
    """Verify an access token with a key of its issuer and return its user.

    Args:
        token: The token as the request carries it.
        unverified: The decoded token, whose `iss` is the issuer.
        key: The key that its header names.
        issuer: The issuer.
        now: The time to check the token against, aware UTC.

    Raises:
        NotAuthenticated: The signature is invalid, or the token is not valid at `now`, for another audience or client.
        InsufficientScope: The token lacks the scope of the issuer.
    """
    try:
        jwt.decode(token, key.key, algorithms=[key.algorithm], options=_SIGNATURE_ONLY)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError):
        raise NotAuthenticated("invalid signature of the access token; log in again") from None
    claims: Mapping[str, object] = unverified.claims
    validity = read_validity(claims)
    if validity.expires_at is None:
        raise NotAuthenticated("access token does not expire (exp); request one with a limited life")
    check_time(validity, now)
    _check_issued_at(claims)
    check_audience(claims, issuer)
    return VerifiedUser(read_user(claims, issuer), validity)


def _check_issued_at(claims: Mapping[str, object]) -> None:
    issued_at = claims.get("iat", 0)
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
        raise NotAuthenticated("token iat must be a number of seconds since 1970; log in again")
