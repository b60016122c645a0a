"""The sessions of the dashboard: a one-time link or a login starts one, and its secret is the cookie of a browser.

Of each secret only the SHA-256 is kept.  All processes of a ledger share the table, so that a browser may reach any of
them.  Each change is listed in state_changes with a public id.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.state import dashboard_session_table as table
from tornado_proxy.state.dashboard_session_table import Identity, Kind
from tornado_proxy.state.guarded_changes import Changes
from tornado_proxy.state.store import StateStore

#: How long a link and a session are valid.
LINK_LIFETIME = timedelta(seconds=60)
SESSION_LIFETIME = timedelta(hours=12)

#: Random bytes of a secret.
_SECRET_BYTES = 32

#: Characters of the digest that name a link or session in the audit trail.
_PUBLIC_CHARACTERS = 12

#: The actor of a change that a browser makes.
_ACTOR = "dashboard"


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A new session: its secret, for the cookie, and whose it is."""

    secret: Secret
    identity: Identity


def make_link(changes: Changes, actor: str, identity: Identity, now: datetime) -> Secret:
    """Store a link that starts one session of `identity`, and return its secret."""
    secret = _draw_secret()
    with changes.change(actor, "dashboard link made", _name(Kind.LINK, secret)) as db:
        table.insert(db, secret, Kind.LINK, identity, now + LINK_LIFETIME)
    return secret


def find_link(store: StateStore, secret: Secret, now: datetime) -> Identity | None:
    """Return the identity that a link signs in; None if it is unknown, was used, or is too old."""
    with store.reading() as db:
        return table.find(db, secret, Kind.LINK, now)


def use_link(changes: Changes, secret: Secret, now: datetime) -> StartedSession:
    """Start the session of a link, which is then used up.

    Raises:
        NotAuthenticated: the link is unknown, was used, or is older than LINK_LIFETIME.
    """
    session = _draw_secret()
    # One transaction: of two requests with one link, the second finds none.
    with changes.change(_ACTOR, "dashboard session started", _name(Kind.SESSION, session)) as db:
        identity = table.find(db, secret, Kind.LINK, now)
        if identity is None:
            raise NotAuthenticated(
                f"this link was used or is older than {LINK_LIFETIME.seconds} seconds; make another one",
                code="invalid_link",
            )
        table.delete(db, secret)
        table.delete_expired(db, now)
        table.insert(db, session, Kind.SESSION, identity, now + SESSION_LIFETIME)
    return StartedSession(session, identity)


def start_session(changes: Changes, identity: Identity, now: datetime) -> StartedSession:
    """Start a session of an identity that a login has proved."""
    session = _draw_secret()
    with changes.change(_ACTOR, "dashboard session started", _name(Kind.SESSION, session)) as db:
        table.delete_expired(db, now)
        table.insert(db, session, Kind.SESSION, identity, now + SESSION_LIFETIME)
    return StartedSession(session, identity)


def find_session(store: StateStore, secret: Secret, now: datetime) -> Identity | None:
    """Return the identity of a session, None if it is unknown or has ended."""
    with store.reading() as db:
        return table.find(db, secret, Kind.SESSION, now)


def end_session(changes: Changes, secret: Secret) -> None:
    """End a session."""
    with changes.change(_ACTOR, "dashboard session ended", _name(Kind.SESSION, secret)) as db:
        table.delete(db, secret)


def end_all_sessions(changes: Changes, actor: str) -> None:
    """End all sessions, and make all links invalid."""
    with changes.change(actor, "dashboard sessions ended", "all") as db:
        table.delete_all(db)


def _draw_secret() -> Secret:
    return Secret(secrets.token_urlsafe(_SECRET_BYTES))


def _name(kind: Kind, secret: Secret) -> str:
    """Return the public id of a link or session: the start of its digest, which proves nothing."""
    return f"dashboard_{kind}_{table.digest(secret)[:_PUBLIC_CHARACTERS]}"
