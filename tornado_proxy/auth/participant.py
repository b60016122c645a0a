"""Participant tokens: HS256 JWTs signed with a project API key's secret.

Claims: `name` (identity), `grants` (list of {name, scope}), `sub` (project id), `kid` (API key id, claim or header),
optional `exp`, `nbf`, `version`; `iat` and any other claim are not looked at.  A token lets its holder call models when
its `api` grant has an `llm` section.  Tokens of the public package meshagent-api (`participant_token.py`) have this
form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, ModelPatterns

ALGORITHM = "HS256"

#: By how much a signer's clock may run ahead of ours.  It holds for `nbf` alone: past its `exp` a token is never taken,
#: so that a signer who wants a token gone by a time can rely on it.
LEEWAY = timedelta(seconds=5)

#: The release of meshagent-api whose form `mint` writes; readers of that package compare it.
_FORM_VERSION = "0.56.0"

_ASK = "ask your project's administrator for a fresh participant token"

#: What a ledger or a terminal cannot hold: control characters, and halves of a surrogate pair.
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

#: Signature only: times are checked against the clock that verify() is given, the rest by the functions below.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True)
class Validity:
    """When a token holds; aware UTC, None where it does not say."""

    not_before: datetime | None
    expires_at: datetime | None

    def check(self, now: datetime) -> None:
        """Raise NotAuthenticated unless the token holds at `now`."""
        if self.expires_at is not None and now >= self.expires_at:
            raise NotAuthenticated(f"the token has expired; {_ASK}")
        if self.not_before is not None and now < self.not_before - LEEWAY:
            raise NotAuthenticated("the token is not valid yet; wait until its nbf, or set its signer's clock right")


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature holds: the caller it stands for, and when."""

    caller: Caller
    validity: Validity


def verify(token: str, keys: Mapping[str, ApiKey], now: datetime) -> VerifiedToken:
    """Verify `token`.  `keys` maps API key ids to keys; `now` is aware UTC.

    Raises:
        NotAuthenticated: the token is not one of ours, or not valid now.
        NotAllowed: it is valid, but grants no model.
    """
    unverified = read_unverified(token)
    key = _signing_key(unverified, keys)
    _check_signature(token, key)
    claims = unverified.claims
    validity = read_validity(claims)
    validity.check(now)
    if claims.get("sub") != key.project_id:
        raise NotAuthenticated(f"the token's project (sub) is not the project of its signing key; {_ASK}")
    name = _text(claims.get("name"))
    if name is None or not name.strip():
        raise NotAuthenticated(f"the token names no participant; {_ASK}")
    grants = read_grants(claims)
    caller = Caller(
        project_id=key.project_id,
        participant=name,
        room=next((room for room in _scopes(grants, "room")), None),
        # As in meshagent-api: the first role that is not "user" wins.
        role=next((role for role in _scopes(grants, "role") if role != "user"), "user"),
        credential_id=key.id,
        granted=_granted_models(grants),
        expires_at=validity.expires_at,
    )
    return VerifiedToken(caller, validity)


def mint(key: ApiKey, name: str, grants: Sequence[Mapping[str, object]], expires_at: datetime | None) -> str:
    """A participant token, signed with `key`.  `grants` are {name, scope} objects."""
    claims: dict[str, object] = {
        "name": name,
        "grants": [dict(grant) for grant in grants],
        "sub": key.project_id,
        "kid": key.id,
        "version": _FORM_VERSION,
    }
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    return jwt.encode(claims, key.secret.reveal(), algorithm=ALGORITHM)


def key_ids(token: UnverifiedToken) -> set[object]:
    """The ids that the header and the claims name as the signing key."""
    return {members["kid"] for members in (token.header, token.claims) if isinstance(members.get("kid"), str)}


def read_validity(claims: Mapping[str, object]) -> Validity:
    """When a token with these claims holds.

    Raises:
        NotAuthenticated: a time is not a number of seconds since 1970 (RFC 7519 section 2, NumericDate).
    """
    return Validity(not_before=_time(claims, "nbf"), expires_at=_time(claims, "exp"))


def read_grants(claims: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """The (name, scope) pairs of a token, in its order.

    Raises:
        NotAuthenticated: they are not a list of {name, scope} objects.
    """
    listed = claims.get("grants")
    if not isinstance(listed, list):
        raise NotAuthenticated(f"the token has no list of grants; {_ASK}")
    grants: list[tuple[str, object]] = []
    for grant in listed:
        if not isinstance(grant, dict) or not isinstance(grant.get("name"), str) or "scope" not in grant:
            raise NotAuthenticated(f"a grant of the token is not an object with name and scope; {_ASK}")
        grants.append((grant["name"], grant["scope"]))
    return tuple(grants)


def _signing_key(token: UnverifiedToken, keys: Mapping[str, ApiKey]) -> ApiKey:
    if token.header.get("alg") != ALGORITHM:
        raise NotAuthenticated(f"participant tokens are signed with {ALGORITHM}; {_ASK}")
    if any("kid" in members and not isinstance(members["kid"], str) for members in (token.header, token.claims)):
        raise NotAuthenticated(f"the token's kid is not text; {_ASK}")
    named = key_ids(token)
    if len(named) != 1:
        problem = "names two different signing keys" if named else "does not name its signing key"
        raise NotAuthenticated(f"the token {problem} (kid); {_ASK}")
    key = keys.get(str(named.pop()))
    if key is None:
        raise NotAuthenticated(f"the token's signing key is not known here, or was removed; {_ASK}")
    return key


def _check_signature(token: str, key: ApiKey) -> None:
    try:
        jwt.decode(token, key.secret.reveal(), algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError):
        raise NotAuthenticated(f"the token's signature does not hold; {_ASK}") from None


def _time(claims: Mapping[str, object], name: str) -> datetime | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthenticated(f"the token's {name} is not a number of seconds; {_ASK}")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise NotAuthenticated(f"the token's {name} is not a time; {_ASK}") from None


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if _NOT_TEXT.search(value):
        raise NotAuthenticated(f"a name in the token holds a control character; {_ASK}")
    return value


def _scopes(grants: Sequence[tuple[str, object]], wanted: str) -> list[str]:
    texts = [_text(scope) for name, scope in grants if name == wanted]
    return [text for text in texts if text]


def _granted_models(grants: Sequence[tuple[str, object]]) -> ModelPatterns:
    api = next((scope for name, scope in grants if name == "api"), None)
    llm = api.get("llm") if isinstance(api, dict) else None
    if not isinstance(llm, dict):
        raise NotAllowed("the token does not grant the use of models; ask for one whose api grant has an llm section")
    models = llm.get("models")
    if models is None:
        return ModelPatterns()
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise NotAuthenticated(f"the token's llm.models is not a list of patterns; {_ASK}")
    return ModelPatterns(tuple(models))
