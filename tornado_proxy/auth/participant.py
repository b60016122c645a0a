"""Participant tokens: HS256 JWTs, signed with the secret of a project API key.

Claims: `name` (the participant), `grants` (list of {name, scope}), `sub` (project id), `kid` (API key id, as a claim or
in the header), optional `exp`, `nbf` and `version`.  `iat` and all other claims are ignored.  A token grants models if
its `api` grant has an `llm` section.  Tokens of the public package meshagent-api (`participant_token.py`) have this
format.
`llm_budget` limits what all requests of a token can cost.  A narrowed token has one more claim, `parent`
(auth/narrowing.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt

from tornado_proxy.auth.narrowing import check_narrowing, derive_key, find_root, list_budgets, list_token_ids
from tornado_proxy.auth.unverified_token import UnverifiedToken, read_unverified
from tornado_proxy.auth.validity import Validity, read_validity
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import MAX_NAME_CHARACTERS, ApiKey, Caller, ModelPatterns

ALGORITHM = "HS256"

#: The release of meshagent-api whose format mint() writes; readers of that package compare it.
_FORMAT_VERSION = "0.56.0"

_REQUEST_NEW = "request a new token from the project's admin"

#: Characters that a ledger or a terminal cannot hold: control characters and lone surrogates.
_INVALID_IN_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

#: PyJWT checks the signature only: it reads the system clock, while verify() gets the time as an argument.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
    "verify_jti": False,
}


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token with a valid signature: its caller and its times."""

    caller: Caller
    validity: Validity


def verify(token: str, keys: Mapping[str, ApiKey], now: datetime) -> VerifiedToken:
    """Verify `token` and return its caller.

    The signature is checked before any claim is used.  Messages name claims but never repeat their values.

    Args:
        token: The token as the request carries it.
        keys: API keys by id.
        now: The time to check the token against, aware UTC.

    Raises:
        NotAuthenticated: The token is malformed, not signed by one of `keys`, or not valid at `now`.
        NotAllowed: The token is valid but grants no model.
    """
    unverified = read_unverified(token)
    key = _find_signing_key(find_root(unverified), keys)
    _check_signature(token, derive_key(unverified, key.secret.reveal().encode()))
    check_narrowing(unverified)
    claims = unverified.claims
    validity = read_validity(claims)
    validity.check(now)
    if claims.get("sub") != key.project_id:
        raise NotAuthenticated(f"token project (sub) does not match the project of its signing key; {_REQUEST_NEW}")
    name = _check_text(claims.get("name"))
    if name is None or not name.strip():
        raise NotAuthenticated(f"token has no participant (name); {_REQUEST_NEW}")
    grants = read_grants(claims)
    token_ids = list_token_ids(token, unverified)
    caller = Caller(
        project_id=key.project_id,
        participant=name,
        room=next((room for room in _list_scopes(grants, "room")), None),
        # As in meshagent-api: the first role other than "user" counts.
        role=next((role for role in _list_scopes(grants, "role") if role != "user"), "user"),
        credential_id=key.id,
        granted=_read_granted_models(grants),
        expires_at=validity.expires_at,
        token_ids=token_ids,
        token_budgets=list_budgets(unverified, token_ids),
    )
    return VerifiedToken(caller, validity)


def mint(key: ApiKey, name: str, grants: Sequence[Mapping[str, object]], expires_at: datetime | None) -> str:
    """Return a new participant token, signed with `key`.

    Args:
        key: The project's API key.
        name: The participant.
        grants: {name, scope} objects.
        expires_at: When the token expires, aware UTC; None for a token that does not expire.
    """
    claims: dict[str, object] = {
        "name": name,
        "grants": [dict(grant) for grant in grants],
        "sub": key.project_id,
        "kid": key.id,
        "version": _FORMAT_VERSION,
    }
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    return jwt.encode(claims, key.secret.reveal(), algorithm=ALGORITHM)


def list_key_ids(token: UnverifiedToken) -> set[object]:
    """Return the key ids that the header and the claims name; a valid token names one."""
    return {members["kid"] for members in (token.header, token.claims) if isinstance(members.get("kid"), str)}


def read_grants(claims: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """Return the (name, scope) pairs of a token, in its order.

    Raises:
        NotAuthenticated: The claim `grants` is not a list of {name, scope} objects.
    """
    listed = claims.get("grants")
    if not isinstance(listed, list):
        raise NotAuthenticated(f"token grants must be a list; {_REQUEST_NEW}")
    grants: list[tuple[str, object]] = []
    for grant in listed:
        if not isinstance(grant, dict) or not isinstance(grant.get("name"), str) or "scope" not in grant:
            raise NotAuthenticated(f"each token grant must be an object with name and scope; {_REQUEST_NEW}")
        grants.append((grant["name"], grant["scope"]))
    return tuple(grants)


def _find_signing_key(token: UnverifiedToken, keys: Mapping[str, ApiKey]) -> ApiKey:
    # Reject every other algorithm before the key is looked up: "none" and RS256 are the classic attacks (RFC 8725
    # section 2.1).
    if token.header.get("alg") != ALGORITHM:
        raise NotAuthenticated(f"token must be signed with {ALGORITHM} (alg); {_REQUEST_NEW}")
    if any("kid" in members and not isinstance(members["kid"], str) for members in (token.header, token.claims)):
        raise NotAuthenticated(f"token kid must be a string; {_REQUEST_NEW}")
    key_ids = list_key_ids(token)
    if len(key_ids) != 1:
        problem = "names two different signing keys" if key_ids else "does not name its signing key"
        raise NotAuthenticated(f"token {problem} (kid); {_REQUEST_NEW}")
    key = keys.get(str(key_ids.pop()))
    if key is None:
        raise NotAuthenticated(f"token signing key (kid) is unknown or was removed; {_REQUEST_NEW}")
    return key


def _check_signature(token: str, key: bytes) -> None:
    try:
        jwt.decode(token, key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError):
        raise NotAuthenticated(f"invalid token signature; {_REQUEST_NEW}") from None


def _check_text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if len(value) > MAX_NAME_CHARACTERS:
        raise NotAuthenticated(
            f"token name, room or role has {len(value)} characters, and at most {MAX_NAME_CHARACTERS} are allowed; "
            f"{_REQUEST_NEW}"
        )
    if _INVALID_IN_NAME.search(value):
        raise NotAuthenticated(f"token name, room or role contains a control character; {_REQUEST_NEW}")
    return value


def _list_scopes(grants: Sequence[tuple[str, object]], wanted: str) -> list[str]:
    texts = [_check_text(scope) for name, scope in grants if name == wanted]
    return [text for text in texts if text]


def _read_granted_models(grants: Sequence[tuple[str, object]]) -> ModelPatterns:
    # As in meshagent-api: the first `api` grant counts.
    api = next((scope for name, scope in grants if name == "api"), None)
    llm = api.get("llm") if isinstance(api, dict) else None
    if not isinstance(llm, dict):
        raise NotAllowed("token has no api grant with an llm section; ask the project's admin for one")
    models = llm.get("models")
    if models is None:
        return ModelPatterns()
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise NotAuthenticated(f"token llm.models must be a list of patterns; {_REQUEST_NEW}")
    return ModelPatterns(tuple(models))
