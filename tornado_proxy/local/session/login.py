"""Starts a session: finds the issuer of a server, logs a person in, and stores the tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tornado_proxy.auth.unverified_token import read_json_object
from tornado_proxy.issuers.http_fetch import Fetch, FetchError, fetch
from tornado_proxy.local.session.code_login import OpenBrowser, log_in_with_browser
from tornado_proxy.local.session.device_login import log_in_on_device
from tornado_proxy.local.session.issuer import DeviceCode, LoginError, discover, read_user, revoke
from tornado_proxy.local.session.session import Client, Session
from tornado_proxy.local.session.store import SessionStore

#: The scopes of a login whose server does not state any.
DEFAULT_SCOPES = ("openid", "offline_access", "llm_proxy")


@dataclass(frozen=True, slots=True)
class LoginWays:
    """How a person logs in.

    Attributes:
        device: True for a login on another device only.
        open_browser: Opens a URL; returns False if there is no browser.
        announce_url: Called with the URL that the browser opens.
        announce_code: Called with the code to enter on another device.
    """

    device: bool
    open_browser: OpenBrowser
    announce_url: Callable[[str], None]
    announce_code: Callable[[DeviceCode], None]


async def find_client(upstream: str) -> Client:
    """Return the client with which people log in at a server.

    Raises:
        LoginError: the server does not state one.
        FetchError: it cannot be reached.
    """
    try:
        content = read_json_object((await fetch(Fetch(f"{upstream}/config"))).body)
    except (ValueError, FetchError) as error:
        if isinstance(error, FetchError) and error.status != 404:
            raise
        content = {}
    stated = content.get("oauth")
    login = stated if isinstance(stated, dict) else {}
    issuer, client_id, scopes = login.get("issuer"), login.get("client_id"), login.get("scopes")
    if not isinstance(issuer, str) or not isinstance(client_id, str):
        raise LoginError(f"{upstream} does not state how to log in; name --issuer and --client-id")
    texts = tuple(scope for scope in scopes if isinstance(scope, str)) if isinstance(scopes, list) else ()
    return Client(issuer, client_id, texts or DEFAULT_SCOPES)


async def log_in(upstream: str, client: Client, ways: LoginWays, store: SessionStore) -> Session:
    """Log a person in and store the session in place of an earlier one.

    Raises:
        LoginError: the person or the issuer has refused.
        FetchError: the issuer cannot be reached.
        OSError: the session cannot be stored.
    """
    endpoints = await discover(client.issuer)
    tokens = None
    if not ways.device:
        tokens = await log_in_with_browser(client, endpoints, ways.open_browser, ways.announce_url)
    if tokens is None:
        tokens = await log_in_on_device(client, endpoints, ways.announce_code)
    session = Session(upstream, client, endpoints, tokens, read_user(tokens))
    async with store.lock():
        await asyncio.to_thread(store.save, session)
    return session


async def log_out(store: SessionStore) -> str:
    """Delete the session and revoke its refresh token; return what happened, for people to read."""
    async with store.lock():
        session = store.read()
        if session is None:
            return "not logged in"
        refresh_token = await asyncio.to_thread(store.read_refresh_token, session)
        await asyncio.to_thread(store.delete, session)
    endpoint = session.endpoints.revocation
    if not endpoint or not refresh_token:
        return f"logged out; {session.client.issuer} offers no revocation, so its tokens are valid until they expire"
    try:
        await revoke(endpoint, session.client.client_id, refresh_token)
    except FetchError as error:
        return f"logged out here, but {session.client.issuer} did not revoke the login ({error})"
    return f"logged out of {session.upstream}"
