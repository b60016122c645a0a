"""Short-lived keys for realtime sessions, which a browser gets instead of the provider's short-lived key.

    ek_<api key id>.<sealed>      sealed: caller, session, expiry and the provider's short-lived key, as a Fernet token

The seal's key is derived from the secret of the project API key that signed the participant's token, or for an OAuth
user of the project's first API key.  So nothing is stored, every process of the server can open the key, and removing
the API key revokes it.  The provider's short-lived
key is inside: it is sent upstream instead of the server's key, so that the provider enforces its own configuration and
expiry.  Only the server can read it.

Sources: github.com/fernet/spec (AES-128-CBC and HMAC-SHA256), RFC 5869 (HKDF).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tornado_proxy.auth.validity import format_time
from tornado_proxy.domain.budgets.budget import Budget
from tornado_proxy.domain.budgets.counter import TOKEN_TOTAL
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, KeyId, ModelPatterns, OAuthUser, Secret, SessionGrant

PREFIX = "ek_"

#: Binds the derived key to this use (RFC 5869 section 3.2, "info"): another use of the secret derives another key.
_PURPOSE = b"tornado-proxy realtime session key"

_REQUEST_NEW = "request a new one at /v1/realtime/client_secrets"


def seal_key(key: ApiKey, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
    """Return a session key.

    Args:
        key: The API key that seals it; its id is part of the session key.
        caller: The caller that the session key identifies.
        grant: The session that it opens.
        expires_at: When it expires, in seconds since 1970.
    """
    content = {
        "project": caller.project_id,
        "participant": caller.participant,
        "room": caller.room,
        "role": caller.role,
        "models": caller.granted.patterns,
        "user": None if caller.oauth_user is None else _user_members(caller.oauth_user),
        "provider_key": grant.provider_key.reveal(),
        "query": grant.query,
        "token_ids": caller.token_ids,
        "token_budgets": [(budget.subject, f"{budget.limit:f}") for budget in caller.token_budgets],
        "made_with": None if grant.made_with is None else astuple(grant.made_with),
        "expires_at": expires_at,
    }
    # Browsers send the key in a WebSocket subprotocol, which is an RFC 9110 token and cannot hold the padding `=`.
    sealed = _fernet(key).encrypt(json.dumps(content).encode()).rstrip(b"=")
    return f"{PREFIX}{key.id}.{sealed.decode()}"


def open_key(token: str, keys: Mapping[str, ApiKey], now: datetime, *, accepted: bool) -> Caller:
    """Return the caller that a session key identifies.

    Args:
        token: The session key.
        keys: API keys by id.
        now: The time to check the expiry against, aware UTC.
        accepted: True if the endpoint accepts session keys.

    Raises:
        NotAuthenticated: The key is not accepted at this endpoint, was not issued by this server, was revoked, is
            invalid or has expired.
    """
    if not accepted:
        raise NotAuthenticated(
            "session key is valid for realtime sessions only (/v1/realtime, its translations and its calls); "
            "send a participant token"
        )
    key_id, _, sealed = token.removeprefix(PREFIX).rpartition(".")
    key = keys.get(key_id)
    if key is None:
        raise NotAuthenticated(f"session key was not issued by this server, or was revoked; {_REQUEST_NEW}")
    try:
        content = json.loads(_fernet(key).decrypt(sealed.encode() + b"=" * (-len(sealed) % 4)))
    except (InvalidToken, UnicodeEncodeError) as error:
        raise NotAuthenticated(f"invalid session key; {_REQUEST_NEW}") from error
    # The seal proves that seal_key() wrote the content, so it needs no further checks.
    expires_at = datetime.fromtimestamp(content["expires_at"], UTC)
    if now >= expires_at:
        raise NotAuthenticated(f"session key expired at {format_time(expires_at)}; {_REQUEST_NEW}")
    models, made_with = content["models"], content.get("made_with")
    user = _read_user(content.get("user"))
    return Caller(
        project_id=key.project_id,
        participant=content["participant"],
        room=content["room"],
        role=content["role"],
        credential_id=key.id if user is None else user.client_id,
        user=None if user is None else user.subject,
        issuer=None if user is None else user.issuer,
        oauth_user=user,
        granted=ModelPatterns(None if models is None else tuple(models)),
        expires_at=expires_at,
        session=SessionGrant(
            Secret(content["provider_key"]), content["query"], None if made_with is None else KeyId(*made_with)
        ),
        # A key of an earlier version has none.
        token_ids=tuple(content.get("token_ids", ())),
        token_budgets=tuple(
            Budget(TOKEN_TOTAL, Decimal(usd), subject=token_id) for token_id, usd in content.get("token_budgets", ())
        ),
    )


def _user_members(user: OAuthUser) -> dict[str, object]:
    return {**asdict(user), "groups": sorted(user.groups)}


def _read_user(members: dict[str, Any] | None) -> OAuthUser | None:
    return None if members is None else OAuthUser(**{**members, "groups": frozenset(members["groups"])})


def _fernet(key: ApiKey) -> Fernet:
    # The project is part of "info", so that a key moved to another project no longer opens.
    derived = HKDF(SHA256(), 32, None, _PURPOSE + key.project_id.encode()).derive(key.secret.reveal().encode())
    return Fernet(urlsafe_b64encode(derived))
