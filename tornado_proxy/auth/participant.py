"""Participant tokens: HS256 JWTs signed with a project API key's secret.

Claims: `name` (identity), `grants` (list of {name, scope}), `sub` (project id), `kid` (API key id, claim or header),
optional `exp`, `nbf`, `iat`, `version`.  A token lets its holder call models when its `api` grant has an `llm` section;
tokens of the public package meshagent-api (`participant_token.py`) have this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jwt

from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, ModelPatterns

ALGORITHM = "HS256"

#: Characters of a token that is looked at; a token with every grant of meshagent-api has some 2,000.
MAX_TOKEN_CHARACTERS = 16 * 1024

#: Seconds by which a caller's clock may differ from ours.
LEEWAY_S = 5

_HOW_TO_GET_ONE = "ask your project's administrator for a fresh participant token"


def verify(token: str, keys: Mapping[str, ApiKey], now: datetime) -> Caller:
    """The participant that `token` stands for.  `keys` maps API key ids to keys; `now` is aware UTC.

    Raises:
        NotAuthenticated: the token is not one of ours, or not valid now.
        NotAllowed: it is valid, but grants no model.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise NotAuthenticated(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters; {_HOW_TO_GET_ONE}")
    key = _signing_key(token, keys)
    claims = _verified_claims(token, key)
    expires_at = _check_times(claims, now)
    if claims.get("sub") != key.project_id:
        raise NotAuthenticated(f"the token's project is not its signing key's project; {_HOW_TO_GET_ONE}")
    grants = _grants(claims)
    return Caller(
        project_id=key.project_id,
        participant=_name(claims),
        room=_scope_text(grants, "room"),
        role=_scope_text(grants, "role") or "user",
        credential_id=key.id,
        granted=_granted_models(grants),
        expires_at=expires_at,
    )


def mint(key: ApiKey, name: str, grants: list[dict[str, object]], expires_at: datetime | None) -> str:
    """A participant token, signed with `key`.  `grants` are {name, scope} objects."""
    claims: dict[str, Any] = {"name": name, "grants": grants, "sub": key.project_id, "kid": key.id}
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    return jwt.encode(claims, key.secret.reveal(), algorithm=ALGORITHM)


def _signing_key(token: str, keys: Mapping[str, ApiKey]) -> ApiKey:
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
        raise NotAuthenticated(f"this is not a participant token; {_HOW_TO_GET_ONE}") from None
    if header.get("alg") != ALGORITHM or "crit" in header:
        raise NotAuthenticated(f"participant tokens are signed with {ALGORITHM}; {_HOW_TO_GET_ONE}")
    named = {str(kid) for kid in (header.get("kid"), claims.get("kid")) if kid is not None}
    if len(named) != 1:
        raise NotAuthenticated(f"the token does not name one signing key (kid); {_HOW_TO_GET_ONE}")
    key = keys.get(named.pop())
    if key is None:
        raise NotAuthenticated(f"the token's signing key is not known here, or was removed; {_HOW_TO_GET_ONE}")
    return key


def _verified_claims(token: str, key: ApiKey) -> dict[str, Any]:
    try:
        # Times are checked below, against the clock that the caller of verify() gives.
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
        return jwt.decode(token, key.secret.reveal(), algorithms=[ALGORITHM], options=options)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError, TypeError):
        raise NotAuthenticated(f"the token's signature does not hold; {_HOW_TO_GET_ONE}") from None


def _check_times(claims: Mapping[str, object], now: datetime) -> datetime | None:
    expires_at, not_before = _time(claims, "exp"), _time(claims, "nbf")
    if expires_at is not None and now.timestamp() >= expires_at.timestamp() + LEEWAY_S:
        raise NotAuthenticated(f"the token has expired; {_HOW_TO_GET_ONE}")
    if not_before is not None and now.timestamp() < not_before.timestamp() - LEEWAY_S:
        raise NotAuthenticated("the token is not valid yet; compare its nbf with your clock")
    return expires_at


def _time(claims: Mapping[str, object], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthenticated(f"the token's {name} is not a number of seconds; {_HOW_TO_GET_ONE}")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise NotAuthenticated(f"the token's {name} is not a time; {_HOW_TO_GET_ONE}") from None


def _name(claims: Mapping[str, object]) -> str:
    name = claims.get("name")
    if not isinstance(name, str) or not name.strip():
        raise NotAuthenticated(f"the token names no participant; {_HOW_TO_GET_ONE}")
    return name


def _grants(claims: Mapping[str, object]) -> dict[str, object]:
    """Grants by name; of two with one name the first holds, as in meshagent-api."""
    listed = claims.get("grants")
    if not isinstance(listed, list):
        raise NotAuthenticated(f"the token has no list of grants; {_HOW_TO_GET_ONE}")
    grants: dict[str, object] = {}
    for grant in listed:
        if isinstance(grant, dict) and isinstance(grant.get("name"), str):
            grants.setdefault(grant["name"], grant.get("scope"))
    return grants


def _scope_text(grants: Mapping[str, object], name: str) -> str | None:
    scope = grants.get(name)
    return scope if isinstance(scope, str) and scope else None


def _granted_models(grants: Mapping[str, object]) -> ModelPatterns:
    api = grants.get("api")
    llm = api.get("llm") if isinstance(api, dict) else None
    if not isinstance(llm, dict):
        raise NotAllowed("the token does not grant the use of models: its api grant needs an llm section")
    models = llm.get("models")
    if models is None:
        return ModelPatterns()
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise NotAuthenticated(f"the token's llm.models is not a list of patterns; {_HOW_TO_GET_ONE}")
    return ModelPatterns(tuple(models))
