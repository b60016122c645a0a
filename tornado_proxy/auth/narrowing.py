"""Narrowed tokens: participant tokens that the holder of a token makes from it, without the project's API key.

    header {"alg": "HS256", "typ": "narrowed+jwt"}
    claims those of the parent, with fewer models or an earlier `exp`, and `parent`: the parent's header and claims
    key    the signature of the parent, which `parent` does not contain

The server computes the parent's signature from the API key and `parent`, and with it checks the signature of the child;
a narrowed token can be the parent of another one.  So removing the API key ends the children too.  From a child nobody
can compute the signature of its parent (HMAC-SHA256), so its holder cannot use the parent; the chaining is that of
macaroons (Birgisson et al., NDSS 2014).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import jwt

from tornado_proxy.auth.permissions import covers
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ModelPatterns

_ALGORITHM = "HS256"
_SIGNATURE_BYTES = 32

#: The value of the header `typ`.  A type of its own, so that a claim `parent` of other programs' tokens means nothing
#: (RFC 8725 section 3.11).
_TYPE = "narrowed+jwt"

_REQUEST_NEW = "narrow its parent again"


@dataclass(frozen=True, slots=True)
class _Link:
    """A token of a chain: its content, and its text up to the signature."""

    token: UnverifiedToken
    signing_input: str


def narrow(token: str, models: Sequence[str] | None, expires_at: datetime | None) -> str:
    """Return a token that grants less than `token`, whose signature is not verified here.

    Args:
        token: The parent.
        models: The patterns of the models that it grants; None for those of the parent.
        expires_at: When it expires, aware UTC; None for the time of the parent.

    Raises:
        NotAuthenticated: `token` is no participant token, or grants less than `models` or an earlier expiry.
    """
    parent = read_unverified(token)
    signing_input, _, signature = token.rpartition(".")
    key = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    if parent.header.get("alg") != _ALGORITHM or len(key) != _SIGNATURE_BYTES:
        raise NotAuthenticated(f"only a participant token, signed with {_ALGORITHM}, can be narrowed")
    exp = None if expires_at is None else int(expires_at.timestamp())
    claims = _narrow_claims(parent.claims, models, exp, signing_input)
    return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"typ": _TYPE})


def find_root(token: UnverifiedToken) -> UnverifiedToken:
    """Return the token that an API key signed: `token` itself, unless it is narrowed.

    Raises:
        NotAuthenticated: A parent is malformed.
    """
    return _list_parents(token)[0].token if _is_narrowed(token) else token


def derive_key(token: UnverifiedToken, secret: bytes) -> bytes:
    """Return the key that signed `token`: the secret of the API key, or the signature of its parent.

    Raises:
        NotAuthenticated: A parent is malformed.
    """
    key = secret
    for link in _list_parents(token):
        key = hmac.digest(key, link.signing_input.encode(), "sha256")
    return key


def check_narrowing(token: UnverifiedToken) -> None:
    """Check that `token`, and each of its parents, grants no more than its own parent.

    Raises:
        NotAuthenticated: One of them grants more, or states something else than its parent.
    """
    links = _list_parents(token)
    for parent, child in pairwise([*(link.token.claims for link in links), token.claims]):
        models, exp = _read_models(child), child.get("exp")
        # Narrowing the parent anew must give the same claims: so every claim is compared, those of other programs too.
        expected = _narrow_claims(parent, models, exp, str(child.get("parent")))
        if {**child} != expected:
            raise NotAuthenticated(
                f"narrowed token differs from its parent in more than models and exp; {_REQUEST_NEW}"
            )


def _is_narrowed(token: UnverifiedToken) -> bool:
    return token.header.get("typ") == _TYPE


def _list_parents(token: UnverifiedToken) -> list[_Link]:
    """Return the parents of a token, the one that an API key signed first; none unless it is narrowed.

    Each is shorter than its child, so the length of a token bounds their number.
    """
    links: list[_Link] = []
    while _is_narrowed(token):
        signing_input = token.claims.get("parent")
        if not isinstance(signing_input, str):
            raise NotAuthenticated(f"narrowed token has no parent; {_REQUEST_NEW}")
        token = read_unverified(f"{signing_input}.")
        if token.header.get("alg") != _ALGORITHM:
            raise NotAuthenticated(f"the parent of a narrowed token must be signed with {_ALGORITHM} (alg)")
        links.insert(0, _Link(token, signing_input))
    return links


def _narrow_claims(
    parent: Mapping[str, object], models: Sequence[str] | None, exp: object, signing_input: str
) -> dict[str, object]:
    claims = {**parent, "parent": signing_input}
    if exp is not None:
        claims["exp"] = _check_expiry(parent.get("exp"), exp)
    if models is not None:
        granted = _read_models(parent)
        for pattern in models:
            if not covers(ModelPatterns(None if granted is None else tuple(granted)), pattern):
                raise NotAuthenticated(f"the parent token does not grant {pattern[:100]!r}; {_REQUEST_NEW}")
        claims["grants"] = [*_replace_models(parent.get("grants"), list(models))]
    return claims


def _check_expiry(parent: object, child: object) -> object:
    if isinstance(child, bool) or not isinstance(child, int | float):
        raise NotAuthenticated(f"token exp must be a number of seconds since 1970; {_REQUEST_NEW}")
    if isinstance(parent, int | float) and child > parent:
        raise NotAuthenticated(f"narrowed token expires after its parent; {_REQUEST_NEW}")
    return child


def _read_models(claims: Mapping[str, object]) -> list[str] | None:
    """Return the patterns of the first `api` grant, as participant.verify() reads it; None if it has none."""
    grants = claims.get("grants")
    scopes = (
        [grant.get("scope") for grant in grants if isinstance(grant, dict) and grant.get("name") == "api"]
        if isinstance(grants, list)
        else []
    )
    llm = scopes[0].get("llm") if scopes and isinstance(scopes[0], dict) else None
    if not isinstance(llm, dict):
        raise NotAuthenticated("token has no api grant with an llm section, so it cannot be narrowed")
    models = llm.get("models")
    if models is None:
        return None
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise NotAuthenticated(f"token llm.models must be a list of patterns; {_REQUEST_NEW}")
    return models


def _replace_models(grants: object, models: list[str]) -> list[object]:
    """Return the grants with other models in the first `api` grant, whose form _read_models() has checked."""
    assert isinstance(grants, list)
    index = next(index for index, grant in enumerate(grants) if isinstance(grant, dict) and grant.get("name") == "api")
    scope = grants[index]["scope"]
    narrowed = {**grants[index], "scope": {**scope, "llm": {**scope["llm"], "models": models}}}
    return [*grants[:index], narrowed, *grants[index + 1 :]]
