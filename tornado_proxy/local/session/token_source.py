"""The access token of the session: refreshed before it expires, by one process at a time.

    fresh ──> used at once
    stale ──> lock of all processes ──> read again: another process has refreshed it?  used
                                   └──> one request to the issuer ──> stored with fsync ──> used
              the issuer cannot be reached: the old token until it expires, then 503; one attempt per backoff step
              the issuer refuses: the session has ended; 401 at once until the next login

Issuers rotate refresh tokens, and end the whole login if one is used twice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from tornado_proxy import tasks
from tornado_proxy.domain.errors import IdentityProviderUnavailable, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.issuers.http_fetch import FetchError
from tornado_proxy.local.session.issuer import LoginError, request_tokens
from tornado_proxy.local.session.session import Session
from tornado_proxy.local.session.store import SessionStore

#: Seconds between two attempts while the issuer cannot be reached; doubled after each one.
MIN_BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0

_LOG_IN = "run tornado-proxy login"


def require_session(session: Session | None) -> Session:
    """Return the session if it can be used.

    Raises:
        NotAuthenticated: there is no session, or it has ended.
    """
    if session is None:
        raise NotAuthenticated(f"not logged in on this machine; {_LOG_IN}", code="login_required")
    if session.ended:
        raise NotAuthenticated(f"the login on this machine has ended; {_LOG_IN}", code="login_required")
    return session


class SessionTokens:
    """Gives the access token of the stored session."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._refreshing: asyncio.Task[None] | None = None
        self._backoff_s = 0.0
        self._due_at = 0.0

    def find_fresh(self) -> Secret | None:
        """Return the access token if it need not be refreshed, else None.

        Raises:
            NotAuthenticated: there is no live session.
        """
        session = require_session(self._store.read())
        return None if session.needs_refresh(datetime.now(UTC)) else session.tokens.access_token

    async def get(self) -> Secret:
        """Return a valid access token; refresh it if it expires soon.

        Raises:
            NotAuthenticated: there is no live session.
            IdentityProviderUnavailable: the token has expired and the issuer cannot be reached.
        """
        fresh = self.find_fresh()
        if fresh is None:
            await self._refresh(lambda session: session.needs_refresh(datetime.now(UTC)))
        session = require_session(self._store.read())
        if session.is_expired(datetime.now(UTC)):
            wait_s = self._due_at - asyncio.get_running_loop().time()
            raise IdentityProviderUnavailable(session.client.issuer, max(1, math.ceil(wait_s)))
        return session.tokens.access_token

    async def replace(self, refused: Secret) -> Secret | None:
        """Return another access token than the one that the server has refused; None if there is no other.

        Raises:
            NotAuthenticated: the session has ended.
        """
        await self._refresh(lambda session: session.tokens.access_token == refused)
        token = require_session(self._store.read()).tokens.access_token
        return None if token == refused else token

    async def _refresh(self, is_stale: Callable[[Session], bool]) -> None:
        """Wait for the running refresh; start one if the session is stale still."""
        # Shielded: a client that leaves must not end a refresh, whose new refresh token would be lost.
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)
        session = self._store.read()
        if session is None or not is_stale(session) or asyncio.get_running_loop().time() < self._due_at:
            return
        if self._refreshing is None:
            self._refreshing = tasks.spawn(self._refresh_once(is_stale), "refresh of the session")
        await asyncio.shield(self._refreshing)

    async def _refresh_once(self, is_stale: Callable[[Session], bool]) -> None:
        try:
            async with self._store.lock():
                session = self._store.read()
                if session is not None and not session.ended and is_stale(session):
                    await self._request_refresh(session)
        finally:
            self._refreshing = None

    async def _request_refresh(self, session: Session) -> None:
        loop, store = asyncio.get_running_loop(), self._store
        refresh_token = await asyncio.to_thread(store.read_refresh_token, session)
        if not refresh_token:
            if session.is_expired(datetime.now(UTC)):
                await asyncio.to_thread(store.save, replace(session, ended=True))
            return
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
        try:
            tokens = await request_tokens(session.endpoints.token, session.client.client_id, form)
        except LoginError as error:
            if error.code == "invalid_grant":
                await asyncio.to_thread(store.save, replace(session, ended=True))
                return
            self._back_off(loop.time(), None)
        except FetchError as error:
            self._back_off(loop.time(), error.retry_after_s)
        else:
            self._backoff_s = self._due_at = 0.0
            # An issuer that does not rotate refresh tokens sends none.
            tokens = replace(tokens, refresh_token=tokens.refresh_token or refresh_token)
            await asyncio.to_thread(store.save, replace(session, tokens=tokens))

    def _back_off(self, now: float, asked_s: int | None) -> None:
        wait_s = 2 * self._backoff_s if asked_s is None else asked_s
        self._backoff_s = min(max(wait_s, MIN_BACKOFF_S), MAX_BACKOFF_S)
        self._due_at = now + self._backoff_s
