"""The proxy's own short-lived keys for realtime sessions: what a browser gets in place of the provider's.

    ek_<api key id>.<sealed>      sealed: caller, session, expiry, and the provider's short-lived key, as Fernet

The key of the seal is derived from the secret of the project API key that signed the participant's token.  So nothing
is stored, every process of the server can open it, and it is revoked with the API key.  What the provider answered with
is inside: it goes up in place of the server's key, so that config and expiry are the provider's own.  Nobody but the
server can read it.

Source: github.com/fernet/spec (AES-128-CBC and HMAC-SHA256), RFC 5869 (HKDF).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, ModelPatterns, Secret, SessionGrant

_PREFIX = "ek_"
_PURPOSE = b"tornado-proxy realtime session key"
_ASK_AGAIN = "ask for another at /v1/realtime/client_secrets"


def looks_like_one(token: str) -> bool:
    """Whether `token` is written like such a key, ours or the provider's."""
    return token.startswith(_PREFIX)


def seal_key(key: ApiKey | None, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
    """The key for `caller`, whose token was signed with `key`.  `expires_at` in seconds since 1970.

    Raises:
        NotAllowed: there is no such API key.
    """
    if key is None:
        raise NotAllowed("only a participant token can ask for a key to a realtime session")
    content = {
        "project": caller.project_id,
        "participant": caller.participant,
        "room": caller.room,
        "role": caller.role,
        "models": caller.granted.patterns,
        "provider_key": grant.provider_key.reveal(),
        "query": grant.query,
        "expires_at": expires_at,
    }
    # Without its padding: `=` must not stand in a WebSocket subprotocol, where browsers put the key.
    sealed = _fernet(key).encrypt(json.dumps(content).encode()).rstrip(b"=")
    return f"{_PREFIX}{key.id}.{sealed.decode()}"


def open_key(token: str, keys: Mapping[str, ApiKey], now: datetime, *, accepted: bool) -> Caller:
    """The caller behind `token` at `now` (aware UTC).  `accepted`: such keys are taken where it was sent.

    Raises:
        NotAuthenticated: it is not one of ours, has expired, was revoked, or is not taken there.
    """
    if not accepted:
        raise NotAuthenticated("this key opens realtime sessions only (/v1/realtime, its translations and its calls)")
    key_id, _, sealed = token.removeprefix(_PREFIX).rpartition(".")
    key = keys.get(key_id)
    if key is None:
        raise NotAuthenticated(f"this session key was not made here, or was revoked; {_ASK_AGAIN}")
    try:
        content = json.loads(_fernet(key).decrypt(sealed.encode() + b"=" * (-len(sealed) % 4)))
    except (InvalidToken, UnicodeEncodeError) as error:
        raise NotAuthenticated(f"this session key is not valid; {_ASK_AGAIN}") from error
    expires_at = datetime.fromtimestamp(content["expires_at"], UTC)
    if now >= expires_at:
        raise NotAuthenticated(f"this session key has expired; {_ASK_AGAIN}")
    models = content["models"]
    return Caller(
        project_id=key.project_id,
        participant=content["participant"],
        room=content["room"],
        role=content["role"],
        credential_id=key.id,
        granted=ModelPatterns(None if models is None else tuple(models)),
        expires_at=expires_at,
        session=SessionGrant(Secret(content["provider_key"]), content["query"]),
    )


def _fernet(key: ApiKey) -> Fernet:
    derived = HKDF(SHA256(), 32, None, _PURPOSE + key.project_id.encode()).derive(key.secret.reveal().encode())
    return Fernet(urlsafe_b64encode(derived))
