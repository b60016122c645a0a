"""The tables of access keys.

access_keys           a row for each key; a revoked key keeps its row, because records name its id
access_key_secrets    the SHA-256 of each secret that is valid, or was until its key was revoked or expired
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.identity import ModelPatterns
from tornado_proxy.domain.state import AccessKey, KeySecret
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

#: How long an expired key is still read, so that its holder gets an error that says when it expired.
_EXPIRED_KEPT = timedelta(days=7)

_COLUMNS = "id, name, project_id, participant, models, expires_at, labels, created_at, revoked_at"
_SELECT_KEYS = f"SELECT {_COLUMNS} FROM access_keys"  # noqa: S608  # names of ours
_SELECT_ALL = f"{_SELECT_KEYS} ORDER BY created_at, id"
_SELECT_USABLE = f"{_SELECT_KEYS} WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)"
_SELECT_KEY = f"{_SELECT_KEYS} WHERE id = ?"
_INSERT_KEY = f"INSERT INTO access_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # names of ours
_REVOKE_KEY = "UPDATE access_keys SET revoked_at = ? WHERE id = ?"

_SELECT_SECRETS = "SELECT digest, key_id, valid_until FROM access_key_secrets ORDER BY valid_until IS NOT NULL, digest"
_SELECT_DIGEST = "SELECT 1 FROM access_key_secrets WHERE digest = ?"
_INSERT_SECRET = "INSERT INTO access_key_secrets (digest, key_id, valid_until) VALUES (?, ?, NULL)"  # noqa: S105
_DELETE_OLD_SECRETS = "DELETE FROM access_key_secrets WHERE key_id = ? AND valid_until IS NOT NULL"
_LIMIT_SECRET = "UPDATE access_key_secrets SET valid_until = ? WHERE key_id = ?"  # noqa: S105


def _create_keys(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS access_keys (
    id {sql.text} PRIMARY KEY,
    name {sql.text} NOT NULL,
    project_id {sql.text} NOT NULL,
    participant {sql.text},
    models {sql.text},
    expires_at {sql.text},
    labels {sql.text} NOT NULL,
    created_at {sql.text} NOT NULL,
    revoked_at {sql.text}
) {sql.keyed_table_end};
"""


def _create_secrets(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS access_key_secrets (
    digest {sql.text} PRIMARY KEY,
    key_id {sql.text} NOT NULL,
    valid_until {sql.text}
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"access_keys": _create_keys, "access_key_secrets": _create_secrets}


def read_usable(db: Database, now: datetime) -> dict[bytes, AccessKey]:
    """Return the keys that are not revoked, nor long expired, by the digest of each of their secrets.

    Raises:
        ValueError, TypeError or AttributeError: a row was not written by this program.
    """
    rows = db.fetch_rows(_SELECT_USABLE, (format_time(now - _EXPIRED_KEPT),))
    keys = _read_rows(rows, _read_secrets(db))
    return {secret.digest: key for key in keys for secret in key.secrets}


def read_all(db: Database) -> list[AccessKey]:
    """Return all keys, revoked ones included, oldest first."""
    return _read_rows(db.fetch_rows(_SELECT_ALL), _read_secrets(db))


def find(db: Database, key_id: str) -> AccessKey:
    """Return the key.

    Raises:
        NotFound: there is no such key.
    """
    keys = _read_rows(db.fetch_rows(_SELECT_KEY, (key_id,)), _read_secrets(db))
    if not keys:
        raise NotFound(f"there is no access key {key_id[:100]!r}; list the keys to see their ids")
    return keys[0]


def insert(db: Database, key: AccessKey) -> None:
    """Store a new key with one secret.

    Raises:
        BadRequest: the secret is that of another key.
    """
    db.run(
        _INSERT_KEY,
        (
            key.id,
            key.name,
            key.project_id,
            key.participant,
            None if key.models.patterns is None else json.dumps(key.models.patterns),
            None if key.expires_at is None else format_time(key.expires_at),
            json.dumps(dict(key.labels)),
            format_time(key.created_at),
            None,
        ),
    )
    for secret in key.secrets:
        _insert_secret(db, key.id, secret.digest)


def rotate(db: Database, key_id: str, digest: bytes, old_valid_until: datetime) -> None:
    """Store a new secret of a key; the one before it is valid until a time, and an older one no longer.

    Raises:
        NotFound: there is no such key.
        BadRequest: the key was revoked, or the secret is that of another key.
    """
    _find_valid(db, key_id)
    db.run(_DELETE_OLD_SECRETS, (key_id,))
    db.run(_LIMIT_SECRET, (format_time(old_valid_until), key_id))
    _insert_secret(db, key_id, digest)


def revoke(db: Database, key_id: str, at: datetime) -> None:
    """Revoke a key.

    Raises:
        NotFound: there is no such key.
        BadRequest: the key was revoked already.
    """
    _find_valid(db, key_id)
    db.run(_REVOKE_KEY, (format_time(at), key_id))


def _find_valid(db: Database, key_id: str) -> None:
    key = find(db, key_id)
    if key.revoked_at is not None:
        raise BadRequest(f"access key {key_id} was revoked at {format_time(key.revoked_at)}; create another one")


def _insert_secret(db: Database, key_id: str, digest: bytes) -> None:
    if db.fetch_rows(_SELECT_DIGEST, (digest.hex(),)):
        raise BadRequest("an access key with this secret exists already; use another secret")
    db.run(_INSERT_SECRET, (digest.hex(), key_id))


def _read_secrets(db: Database) -> dict[str, list[KeySecret]]:
    """Return the secrets of each key, the current one first."""
    secrets: dict[str, list[KeySecret]] = {}
    for digest, key_id, valid_until in db.fetch_rows(_SELECT_SECRETS):
        secrets.setdefault(str(key_id), []).append(KeySecret(bytes.fromhex(str(digest)), _read_time(valid_until)))
    return secrets


def _read_rows(rows: Sequence[tuple[object, ...]], secrets: Mapping[str, Sequence[KeySecret]]) -> list[AccessKey]:
    return [
        AccessKey(
            id=str(key_id),
            name=str(name),
            project_id=str(project_id),
            participant=None if participant is None else str(participant),
            models=ModelPatterns(None if models is None else tuple(map(str, json.loads(str(models))))),
            expires_at=_read_time(expires_at),
            labels={str(label): str(value) for label, value in json.loads(str(labels)).items()},
            created_at=datetime.fromisoformat(str(created_at)),
            revoked_at=_read_time(revoked_at),
            secrets=tuple(secrets.get(str(key_id), ())),
        )
        for key_id, name, project_id, participant, models, expires_at, labels, created_at, revoked_at in rows
    ]


def _read_time(text: object) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))
