"""The JSON documents of access keys, for the admin port and the command line.  Pure functions.

POST /v1/access-keys                read_creation    ──> show_secret
POST /v1/access-keys/import         read_import      ──> show_key
POST /v1/access-keys/{id}/rotate    read_rotation    ──> show_secret
GET /v1/access-keys                                      show_keys
DELETE /v1/access-keys/{id}                              show_key
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.identity import ModelPatterns, Secret
from tornado_proxy.domain.state import AccessKey
from tornado_proxy.ledger.rows import format_time
from tornado_proxy.state.key_settings import KeySettings, check_grace, check_settings, parse_digest

#: Seconds for which the secret before a rotation is valid, unless the request says otherwise: a day.
DEFAULT_GRACE_S = 86_400

_Document = TypeVar("_Document")


class _Creation(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    project_id: str
    participant: str | None = None
    models: list[str] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    labels: dict[str, str] = {}


class _Import(_Creation, kw_only=True, forbid_unknown_fields=True):
    sha256: str


class _Rotation(msgspec.Struct, forbid_unknown_fields=True):
    grace_s: int = DEFAULT_GRACE_S


def read_creation(body: bytes, projects: Container[str], now: datetime) -> KeySettings:
    """Return the settings of a new key.

    Args:
        body: The JSON document.
        projects: The ids of the configured projects.
        now: The time, aware UTC.

    Raises:
        BadRequest: The document has another form, or a member breaks a rule.
    """
    return _read_settings(_decode(body, _Creation), projects, now)


def read_import(body: bytes, projects: Container[str], now: datetime) -> tuple[KeySettings, bytes]:
    """Return the settings of a key that was made elsewhere, and the SHA-256 of its secret.

    Raises:
        BadRequest: As in read_creation(), or the digest is malformed.
    """
    document = _decode(body, _Import)
    return _read_settings(document, projects, now), parse_digest(document.sha256)


def read_rotation(body: bytes) -> timedelta:
    """Return the grace period of the secret that is replaced; an empty body means a day.

    Raises:
        BadRequest: The document has another form, or the period is too long.
    """
    # Compared as a number first: a timedelta cannot hold every integer.
    grace_s = _decode(body, _Rotation).grace_s if body else DEFAULT_GRACE_S
    grace = timedelta(seconds=grace_s) if abs(grace_s) < 10**9 else timedelta.max
    check_grace(grace)
    return grace


def show_key(key: AccessKey) -> dict[str, object]:
    """Return the document of a key.  It holds no secret, nor the digest of one."""
    previous = next((secret.valid_until for secret in key.secrets if secret.valid_until is not None), None)
    return {
        "id": key.id,
        "name": key.name,
        "project_id": key.project_id,
        "participant": key.participant,
        "models": None if key.models.patterns is None else list(key.models.patterns),
        "expires_at": _show_time(key.expires_at),
        "labels": dict(key.labels),
        "created_at": _show_time(key.created_at),
        "revoked_at": _show_time(key.revoked_at),
        "previous_secret_valid_until": _show_time(previous),
    }


def show_secret(key: AccessKey, secret: Secret) -> dict[str, object]:
    """Return the document of a key with its new secret, which is shown only once."""
    return {**show_key(key), "secret": secret.reveal()}


def show_keys(keys: Iterable[AccessKey]) -> dict[str, object]:
    """Return the document of all keys."""
    return {"access_keys": [show_key(key) for key in keys]}


def _decode(body: bytes, document_type: type[_Document]) -> _Document:
    try:
        return msgspec.json.decode(body, type=document_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # msgspec names the path and the expected type, never the value.
        raise InvalidBody(f"the body is not a valid document: {str(error)[:1].lower()}{str(error)[1:]}") from None


def _read_settings(document: _Creation, projects: Container[str], now: datetime) -> KeySettings:
    settings = KeySettings(
        name=document.name,
        project_id=document.project_id,
        participant=document.participant,
        models=ModelPatterns(None if document.models is None else tuple(document.models)),
        expires_at=document.expires_at,
        labels=document.labels,
    )
    check_settings(settings, projects, now)
    return settings


def _show_time(time: datetime | None) -> str | None:
    return None if time is None else format_time(time)
