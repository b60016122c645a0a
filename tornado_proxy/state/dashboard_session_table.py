"""The table of dashboard sessions and of the one-time links that start them, and the identities that they prove."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from tornado_proxy.domain.identity import OAuthUser, Secret
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.dialect import Dialect
from tornado_proxy.ledger.rows import format_time

#: Sessions of one identity; the oldest one ends when another begins.
MAX_SESSIONS = 50

#: Characters of a secret that are hashed: a longer text is none.
_MAX_SECRET_CHARACTERS = 100


class OperatorIdentity(msgspec.Struct, frozen=True, tag="operator"):
    """The operator, who sees all projects."""


class ProjectIdentity(msgspec.Struct, frozen=True, tag="project"):
    """A person whom the operator shows a project: all of it, or without both others the usage of one caller."""

    project_id: str
    participant: str | None = None
    user: str | None = None
    issuer: str | None = None


class UserIdentity(msgspec.Struct, frozen=True, tag="user"):
    """A user who has signed in at an OAuth issuer."""

    issuer: str
    subject: str
    client_id: str
    email: str | None = None
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, user: OAuthUser) -> UserIdentity:
        """Return the identity of a verified user."""
        return cls(user.issuer, user.subject, user.client_id, user.email, tuple(sorted(user.groups)))

    @property
    def oauth_user(self) -> OAuthUser:
        """The user, with the claims that make it a member of projects."""
        return OAuthUser(self.issuer, self.subject, self.client_id, self.email, frozenset(self.groups))


Identity = OperatorIdentity | ProjectIdentity | UserIdentity

_decode = msgspec.json.Decoder(Identity).decode


class Kind(StrEnum):
    """The purpose of a secret: a link starts a session, a session shows pages."""

    LINK = "link"
    SESSION = "session"


_COLUMNS = "digest, kind, identity, expires_at"
_INSERT = f"INSERT INTO dashboard_sessions ({_COLUMNS}) VALUES (?, ?, ?, ?)"  # noqa: S608  # names of ours
_SELECT = "SELECT identity FROM dashboard_sessions WHERE digest = ? AND kind = ? AND expires_at > ?"
_SELECT_OF_IDENTITY = "SELECT digest FROM dashboard_sessions WHERE kind = ? AND identity = ? ORDER BY expires_at DESC"
_DELETE = "DELETE FROM dashboard_sessions WHERE digest = ?"
_DELETE_EXPIRED = "DELETE FROM dashboard_sessions WHERE expires_at <= ?"
_DELETE_ALL = "DELETE FROM dashboard_sessions"


def _create_sessions(sql: Dialect) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS dashboard_sessions (
    digest {sql.text} PRIMARY KEY,
    kind {sql.text} NOT NULL,
    identity {sql.text} NOT NULL,
    expires_at {sql.text} NOT NULL
) {sql.keyed_table_end};
"""


#: Each table, and the function that returns the SQL which makes it.
TABLES: Mapping[str, Callable[[Dialect], str]] = {"dashboard_sessions": _create_sessions}


def insert(db: Database, secret: Secret, kind: Kind, identity: Identity, expires_at: datetime) -> None:
    """Store a secret; of the sessions of an identity the newest MAX_SESSIONS stay."""
    encoded = msgspec.json.encode(identity).decode()
    db.run(_INSERT, (digest(secret), kind.value, encoded, format_time(expires_at)))
    for (old,) in db.fetch_rows(_SELECT_OF_IDENTITY, (kind.value, encoded))[MAX_SESSIONS:]:
        db.run(_DELETE, (old,))


def find(db: Database, secret: Secret, kind: Kind, now: datetime) -> Identity | None:
    """Return the identity that a secret proves, None if it proves none."""
    rows = db.fetch_rows(_SELECT, (digest(secret), kind.value, format_time(now)))
    return _decode(str(rows[0][0])) if rows else None


def delete(db: Database, secret: Secret) -> None:
    """Delete a secret."""
    db.run(_DELETE, (digest(secret),))


def delete_expired(db: Database, now: datetime) -> None:
    """Delete the secrets that have expired."""
    db.run(_DELETE_EXPIRED, (format_time(now),))


def delete_all(db: Database) -> None:
    """Delete all secrets."""
    db.run(_DELETE_ALL)


def digest(secret: Secret) -> str:
    """Return the text under which a secret is stored."""
    return hashlib.sha256(secret.reveal()[:_MAX_SECRET_CHARACTERS].encode("utf-8", "surrogatepass")).hexdigest()
