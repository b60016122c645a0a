"""Login in a browser: authorization code with PKCE, and a redirect to a free port of this machine (RFC 8252).

listen on 127.0.0.1 ──> the browser opens the issuer's page ──> /callback with code, state and iss
                                                                  │ another state or iss: 400, keep waiting
                                                                  ├ error: the login fails
                                                                  └ code: exchanged for tokens
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode, urlsplit, urlunsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tornado_proxy.local.session.issuer import LoginError, request_tokens
from tornado_proxy.local.session.session import Client, Endpoints, Tokens

_HOST = "127.0.0.1"
_PATH = "/callback"

#: Characters of an issuer's error that are shown.
_MAX_ERROR_CHARACTERS = 300

#: Opens a URL for the person; returns False if that is not possible.
OpenBrowser = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Request:
    """An authorization request that waits for its callback."""

    issuer: str
    states_issuer: bool
    host: str
    code: asyncio.Future[str]
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def redirect_uri(self) -> str:
        return f"http://{self.host}{_PATH}"


async def log_in_with_browser(
    client: Client, endpoints: Endpoints, open_browser: OpenBrowser, announce: Callable[[str], None]
) -> Tokens | None:
    """Return the tokens of a login; None if no browser can be opened.

    Waits for the person; the caller sets the time limit.

    Args:
        client: The client that logs in.
        endpoints: The endpoints of its issuer.
        open_browser: Opens the page of the issuer; called in a thread.
        announce: Called with the URL of the page.

    Raises:
        LoginError: the person or the issuer has refused.
        FetchError: the issuer cannot be reached.
    """
    if not endpoints.authorization:
        raise LoginError(f"{client.issuer} has no authorization endpoint; use --device")
    (socket,) = bind_sockets(0, _HOST)
    waiting = asyncio.get_running_loop().create_future()
    request = _Request(client.issuer, endpoints.states_issuer, f"{_HOST}:{socket.getsockname()[1]}", waiting)
    server = HTTPServer(Application([(_PATH, _CallbackHandler, {"expected": request})], log_function=lambda _: None))
    server.add_socket(socket)
    try:
        url = _make_url(client, endpoints.authorization, request)
        announce(url)
        opening = _open_in_thread(open_browser, url)
        await asyncio.wait({opening, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and not opening.result():
            return None
        code = await waiting
    finally:
        server.stop()
        await server.close_all_connections()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": request.redirect_uri}
    return await request_tokens(endpoints.token, client.client_id, {**form, "code_verifier": request.verifier})


def _open_in_thread(open_browser: OpenBrowser, url: str) -> asyncio.Future[bool]:
    """Open `url`; the result is True if that worked.

    In a daemon thread: some browsers return only when the person closes them, and the program must end before.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[bool] = loop.create_future()

    def set_result(result: bool) -> None:  # noqa: FBT001  # call_soon_threadsafe() passes it by position
        if not opened.done():
            opened.set_result(result)

    def run() -> None:
        result = open_browser(url)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the login has ended
            loop.call_soon_threadsafe(set_result, result)

    threading.Thread(target=run, name="browser", daemon=True).start()
    return opened


def open_system_browser(url: str) -> bool:
    """Open `url` in the browser of the system; return False if there is none."""
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


def _make_url(client: Client, endpoint: str, request: _Request) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(request.verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": request.redirect_uri,
        "scope": " ".join(client.scopes),
        "state": request.state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        # OpenID Connect Core section 11: a refresh token is issued only with consent.
        "prompt": "consent",
    }
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))


class _CallbackHandler(RequestHandler):
    """The page to which the issuer sends the browser."""

    def initialize(self, expected: _Request) -> None:
        self._expected = expected

    def get(self) -> None:
        fault = self._find_fault()
        if fault:
            self._show(400, "This is not the login that was started", fault)
            return
        error, code = self.get_query_argument("error", ""), self.get_query_argument("code", "")
        if not error and not code:
            self._show(400, "This is not the login that was started", "the response holds no code")
            return
        waiting = self._expected.code
        if error:
            text = self.get_query_argument("error_description", "") or error
            shown = "".join(character for character in text if character.isprintable())[:_MAX_ERROR_CHARACTERS]
            self._show(200, "Not logged in", shown)
            if not waiting.done():
                waiting.set_exception(LoginError(f"the login was refused: {shown}", error))
            return
        self._show(200, "Logged in", "You can close this page.")
        if not waiting.done():
            waiting.set_result(code)

    def _find_fault(self) -> str:
        """Return why the request is not the response to ours, "" if it is (RFC 9700 section 4.7, RFC 9207)."""
        expected = self._expected
        if self.request.host != expected.host:
            return "the Host is not the address of the login"
        state = self.get_query_argument("state", "").encode()
        if not hmac.compare_digest(state, expected.state.encode()):
            return "the state is another one"
        issuer = self.get_query_argument("iss", None)
        if issuer != expected.issuer and (issuer is not None or expected.states_issuer):
            return "the issuer (iss) is another one"
        return ""

    def _show(self, status: int, title: str, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Security-Policy", "default-src 'none'")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.finish(f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{escape(text)}</p>")
