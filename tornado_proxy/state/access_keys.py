"""The changes of access keys: create, import, rotate, revoke.  For the command line and for the admin port."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from tornado_proxy.auth import access_key
from tornado_proxy.auth.token_cache import compute_digest
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.state import AccessKey, KeySecret
from tornado_proxy.state import access_key_table
from tornado_proxy.state.guarded_changes import Changes
from tornado_proxy.state.key_settings import KeySettings
from tornado_proxy.state.store import StateStore

#: Random bytes of an id.
_ID_BYTES = 12


def create(changes: Changes, actor: str, settings: KeySettings) -> tuple[AccessKey, Secret]:
    """Create a key; return it and its secret, which is stored nowhere."""
    secret = access_key.generate()
    key = _make_key(settings, compute_digest(secret.reveal()))
    with changes.change(actor, "access key created", key.id) as db:
        access_key_table.insert(db, key)
    return key, secret


def import_digest(changes: Changes, actor: str, settings: KeySettings, digest: bytes) -> AccessKey:
    """Create a key whose secret was made elsewhere, by the SHA-256 of the secret's text.

    Raises:
        BadRequest: there is a key with this secret.
    """
    key = _make_key(settings, digest)
    with changes.change(actor, "access key imported", key.id) as db:
        access_key_table.insert(db, key)
    return key


def rotate(changes: Changes, actor: str, key_id: str, grace: timedelta) -> tuple[AccessKey, Secret]:
    """Give a key another secret; return the key and the secret, which is stored nowhere.

    The secret before it is valid for `grace` from now, an older one no longer.

    Raises:
        NotFound: there is no such key.
        BadRequest: the key was revoked.
    """
    secret = access_key.generate()
    with changes.change(actor, "access key rotated", key_id) as db:
        access_key_table.rotate(db, key_id, compute_digest(secret.reveal()), datetime.now(UTC) + grace)
        key = access_key_table.find(db, key_id)
    return key, secret


def revoke(changes: Changes, actor: str, key_id: str) -> AccessKey:
    """Revoke a key and return it.

    Raises:
        NotFound: there is no such key.
        BadRequest: the key was revoked already.
    """
    with changes.change(actor, "access key revoked", key_id) as db:
        access_key_table.revoke(db, key_id, datetime.now(UTC))
        key = access_key_table.find(db, key_id)
    return key


def list_keys(store: StateStore) -> list[AccessKey]:
    """Return all keys, revoked ones included, oldest first."""
    with store.reading() as db:
        return access_key_table.read_all(db)


def find_key(store: StateStore, key_id: str) -> AccessKey:
    """Return a key, also a revoked one.

    Raises:
        NotFound: there is no such key.
    """
    with store.reading() as db:
        return access_key_table.find(db, key_id)


def _make_key(settings: KeySettings, digest: bytes) -> AccessKey:
    return AccessKey(
        id=f"ak_{os.urandom(_ID_BYTES).hex()}",
        name=settings.name,
        project_id=settings.project_id,
        participant=settings.participant,
        models=settings.models,
        expires_at=settings.expires_at,
        labels=settings.labels,
        created_at=datetime.now(UTC),
        secrets=(KeySecret(digest),),
    )
