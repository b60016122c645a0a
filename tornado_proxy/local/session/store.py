"""Stores the session in a file of mode 0600, and its refresh token in the system's keyring if one works.

The keyring holds the refresh token alone: that of Windows holds 1,280 characters, too few for all tokens of a login.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import keyring
from filelock import AsyncFileLock
from keyring.errors import KeyringError

from tornado_proxy.domain.identity import Secret
from tornado_proxy.local.folders import replace_private_file
from tornado_proxy.local.session.session import Client, Endpoints, Session, Tokens

_SERVICE = "tornado-proxy"
_FILE, _LOCK_FILE = "session.json", "session.lock"


@dataclass(frozen=True, slots=True)
class _FileVersion:
    """Tells one content of a file from the next."""

    inode: int
    modified_ns: int


class SessionStore:
    """The session of this user.  Hold lock() while it is changed; reading needs no lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock_path = folder / _LOCK_FILE
        self._version: _FileVersion | None = None
        self._session: Session | None = None

    def lock(self) -> AsyncFileLock:
        """Return the lock of all processes of this user; it ends with the process that holds it."""
        return AsyncFileLock(self._lock_path, thread_local=False, mode=0o600)

    def read(self) -> Session | None:
        """Return the session without the refresh token that a keyring holds; None without a valid session file."""
        try:
            stat = self._path.stat()
        except OSError:
            self._version = self._session = None
            return None
        version = _FileVersion(stat.st_ino, stat.st_mtime_ns)
        if version != self._version:
            self._session = _parse(self._path)
            self._version = version
        return self._session

    def read_refresh_token(self, session: Session) -> Secret:
        """Return the refresh token, "" without one.  A keyring can ask the user, so call it in a thread."""
        if session.tokens.refresh_token:
            return session.tokens.refresh_token
        try:
            return Secret(keyring.get_password(_SERVICE, _account(session)) or "")
        except (KeyringError, OSError):
            return Secret("")

    def save(self, session: Session) -> None:
        """Store the session; it is durable when this returns.  Call it in a thread.

        Raises:
            OSError: the file cannot be written.
        """
        stored = session
        if session.tokens.refresh_token and _put_into_keyring(session):
            stored = replace(session, tokens=replace(session.tokens, refresh_token=Secret("")))
        replace_private_file(self._path, json.dumps(_format(stored), indent=1) + "\n")

    def delete(self, session: Session) -> None:
        """Delete the session and its refresh token."""
        self._path.unlink(missing_ok=True)
        try:
            keyring.delete_password(_SERVICE, _account(session))
        except (KeyringError, OSError):
            return  # there is no keyring, or it has no such entry


def _account(session: Session) -> str:
    return f"{session.client.client_id} at {session.client.issuer}"


def _put_into_keyring(session: Session) -> bool:
    """Return True if the keyring holds the refresh token now."""
    secret = session.tokens.refresh_token.reveal()
    try:
        keyring.set_password(_SERVICE, _account(session), secret)
        # A backend that stores nothing raises no error.
        return keyring.get_password(_SERVICE, _account(session)) == secret
    except (KeyringError, OSError):
        return False


def _format(session: Session) -> dict[str, object]:
    tokens, client, endpoints = session.tokens, session.client, session.endpoints
    return {
        "upstream": session.upstream,
        "user": session.user,
        "ended": session.ended,
        "issuer": client.issuer,
        "client_id": client.client_id,
        "scopes": list(client.scopes),
        "token_endpoint": endpoints.token,
        "revocation_endpoint": endpoints.revocation,
        "access_token": tokens.access_token.reveal(),
        "obtained_at": tokens.obtained_at.isoformat(),
        "lifetime_s": None if tokens.lifetime is None else tokens.lifetime.total_seconds(),
        "refresh_token": tokens.refresh_token.reveal(),
    }


def _parse(path: Path) -> Session | None:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text())
        lifetime_s = content["lifetime_s"]
        tokens = Tokens(
            access_token=Secret(content["access_token"]),
            obtained_at=datetime.fromisoformat(content["obtained_at"]),
            lifetime=None if lifetime_s is None else timedelta(seconds=lifetime_s),
            refresh_token=Secret(content["refresh_token"]),
        )
        return Session(
            upstream=content["upstream"],
            client=Client(content["issuer"], content["client_id"], tuple(content["scopes"])),
            endpoints=Endpoints(token=content["token_endpoint"], revocation=content["revocation_endpoint"]),
            tokens=tokens,
            user=content["user"],
            ended=content["ended"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of another version, or edited: a new login replaces it
