"""Short-lived keys for realtime sessions, which a browser gets instead of the provider's short-lived key.

    ek_<api key id>.<sealed>      sealed: caller, session, expiry and the provider's short-lived key, as a Fernet token

The seal's key is derived from the secret of the project API key that signed the participant's token.  So nothing is
stored, every process of the server can open the key, and removing the API key revokes it.  The provider's short-lived
key is inside: it is sent upstream instead of the server's key, so that the provider enforces its own configuration and
expiry.  Only the server can read it.

Sources: github.com/fernet/spec (AES-128-CBC and HMAC-SHA256), RFC 5869 (HKDF).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import astuple
from datetime import UTC, datetime

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tornado_proxy.auth.validity import format_time
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import ApiKey, Caller, KeyId, ModelPatterns, Secret, SessionGrant

PREFIX = "ek_"

#: Binds the derived key to this use (RFC 5869 section 3.2, "info"): another use of the secret derives another key.
_PURPOSE = b"tornado-proxy realtime session key"

_REQUEST_NEW = "request a new one at /v1/realtime/client_secrets"


def seal_key(key: ApiKey | None, caller: Caller, grant: SessionGrant, expires_at: int) -> str:
    """Return a session key.

    Args:
        key: The API key that signed the caller's token.
        caller: The caller that the session key identifies.
        grant: The session that it opens.
        expires_at: When it expires, in seconds since 1970.

    Raises:
        NotAllowed: `key` is None: the caller's credential is not a participant token.
    """
    key = require_key(key)
    content = {
        "project": caller.project_id,
        "participant": caller.participant,
        "room": caller.room,
        "role": caller.role,
        "models": caller.granted.patterns,
        "provider_key": grant.provider_key.reveal(),
        "query": grant.query,
        "made_with": None if grant.made_with is None else astuple(grant.made_with),
        "expires_at": expires_at,
    }
    # Browsers send the key in a WebSocket subprotocol, which is an RFC 9110 token and cannot hold the padding `=`.
    sealed = _fernet(key).encrypt(json.dumps(content).encode()).rstrip(b"=")
    return f"{PREFIX}{key.id}.{sealed.decode()}"


def require_key(key: ApiKey | None) -> ApiKey:
    """Return the API key that signed a caller's token.

    Raises:
        NotAllowed: `key` is None: the caller's credential is not a participant token.
    """
    if key is None:
        raise NotAllowed("only a participant token can request a session key; send one in place of this credential")
    return key


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
    return Caller(
        project_id=key.project_id,
        participant=content["participant"],
        room=content["room"],
        role=content["role"],
        credential_id=key.id,
        granted=ModelPatterns(None if models is None else tuple(models)),
        expires_at=expires_at,
        session=SessionGrant(
            Secret(content["provider_key"]), content["query"], None if made_with is None else KeyId(*made_with)
        ),
    )


def _fernet(key: ApiKey) -> Fernet:
    # The project is part of "info", so that a key moved to another project no longer opens.
    derived = HKDF(SHA256(), 32, None, _PURPOSE + key.project_id.encode()).derive(key.secret.reveal().encode())
    return Fernet(urlsafe_b64encode(derived))
