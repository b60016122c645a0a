"""Sign in at the configured issuer: authorization code with PKCE (RFC 6749, RFC 7636), on the client port.

GET /dashboard/sign-in/start?next=...    a cookie with the state and the verifier, and a redirect to the issuer
GET /dashboard/sign-in/callback          the code becomes an access token, which is verified as that of a request is

The access token is used once, to find the user, and kept nowhere.  The issuer's redirect is a request that another site
causes, so the cookie of the login is SameSite=Lax, and the page that sets the Strict cookie of the session leads on by
itself: a redirect from it would still be the other site's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import replace
from urllib.parse import urlencode

import msgspec

from tornado_proxy.api.accounts.login import make_authorization, make_token_form
from tornado_proxy.auth.oauth.claims import VerifiedUser
from tornado_proxy.dashboard.sign_in import SessionHandler
from tornado_proxy.dashboard.viewer import find_viewer
from tornado_proxy.domain.config.oauth import LoginClient
from tornado_proxy.domain.errors import NotAuthenticated, NotFound
from tornado_proxy.issuers.login_server import LoginServer, TokenResponse
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.state.dashboard_session_table import UserIdentity
from tornado_proxy.state.dashboard_sessions import start_session

#: The name of the cookie of a login, and the seconds that a person may take at the issuer.
_COOKIE, _LOGIN_LIFETIME_S = "llm_proxy_dashboard_login", 600

#: Random bytes of the state, and of the verifier: 43 to 128 characters (RFC 7636 section 4.1).
_STATE_BYTES, _VERIFIER_BYTES = 32, 48

#: A path below that of the dashboard, with its parameters.
_NEXT = re.compile(r"/(?!/)[A-Za-z0-9/_.~%?&=+,:-]{0,2000}")


class _Login(msgspec.Struct, frozen=True):
    """A login that has begun: the content of its cookie."""

    state: str
    verifier: str
    next: str


class _LoginHandler(SessionHandler):
    """A part of a login at the issuer."""

    def find_login(self) -> tuple[str, LoginServer, LoginClient]:
        """Return the name of the issuer and its login.

        Raises:
            NotFound: there is none, or this is the admin port: no issuer says who the operator is.
        """
        if self.site.is_admin:
            raise NotFound("the admin port has no login; run tornado-proxy dashboard for a link")
        return find_login(self.snapshot)


class StartHandler(_LoginHandler):
    """Starts a login."""

    async def get(self) -> None:
        """Redirect to the issuer."""
        _, server, login = self.find_login()
        endpoint = (await server.find_endpoints()).authorization
        begun = _Login(
            secrets.token_urlsafe(_STATE_BYTES),
            secrets.token_urlsafe(_VERIFIER_BYTES),
            read_next(self.parameters.get("next")),
        )
        digest = hashlib.sha256(begun.verifier.encode()).digest()
        parameters = make_authorization(
            {
                "response_type": "code",
                "redirect_uri": self.redirect_uri,
                "state": begun.state,
                "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            },
            login,
        )
        self.set_cookie(
            _COOKIE,
            base64.urlsafe_b64encode(msgspec.json.encode(begun)).decode(),
            path=f"{self.base}/sign-in",
            max_age=_LOGIN_LIFETIME_S,
            httponly=True,
            samesite="Lax",
            secure=self.own_root.startswith("https:"),
        )
        self.log_request(302)
        self.redirect(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}")


class CallbackHandler(_LoginHandler):
    """Receives the issuer's response."""

    async def get(self) -> None:
        """Start the session of the user, and lead to the page that it wanted to see."""
        issuer, server, login = self.find_login()
        begun = self._read_login()
        self.clear_cookie(_COOKIE, path=f"{self.base}/sign-in")
        code = check_response(self.parameters, begun.state, issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": begun.verifier,
        }
        token = read_access_token(await server.request_token(make_token_form(form, login)))
        identity = UserIdentity.of((await self._verify(token)).user)
        self.viewer = find_viewer(identity, self.snapshot.projects, None)
        session = await self.site.state.change(lambda store: start_session(store, identity, self.now))
        self.set_session_cookie(session)
        self.show("signed_in.html", "Signed in", next_url=self.base + begun.next)

    def _read_login(self) -> _Login:
        """Return the login of the cookie.

        Raises:
            NotAuthenticated: there is none.
        """
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(self.get_cookie(_COOKIE) or ""), type=_Login)
        except ValueError:  # binascii.Error and msgspec.DecodeError are
            raise NotAuthenticated(
                "this login was not begun in this browser, or took more than ten minutes; sign in again",
                code="invalid_login",
            ) from None

    async def _verify(self, token: str) -> VerifiedUser:
        verified = self.snapshot.authenticator.verify_user(token, self.now)
        if verified is None:
            raise NotAuthenticated(
                "the issuer's access token is none of a user; ask the operator", code="invalid_login"
            )
        return verified if isinstance(verified, VerifiedUser) else await verified


def find_login(snapshot: Snapshot) -> tuple[str, LoginServer, LoginClient]:
    """Return the name and the login of the first issuer that has one.

    Without `offline_access`: the token is used once, so that no refresh token is needed.

    Raises:
        NotFound: no issuer has one.
    """
    for client in snapshot.issuers:
        login = client.issuer.login
        if client.login_server is not None and login is not None:
            scopes = tuple(scope for scope in login.scopes if scope != "offline_access")
            return client.issuer.name, client.login_server, replace(login, scopes=scopes)
    raise NotFound("this server has no login (oauth[].login); ask the operator for a link to the dashboard")


def read_next(text: str | None) -> str:
    """Return a path below that of the dashboard; that of the bill unless `text` is one."""
    return text if text is not None and _NEXT.fullmatch(text) and ".." not in text else "/"


def check_response(given: dict[str, str], state: str, issuer: str) -> str:
    """Return the code of the issuer's response.

    Raises:
        NotAuthenticated: it is the response to another login or of another issuer (RFC 9207), or the issuer refuses.
    """
    if not hmac.compare_digest(given.get("state", "").encode(), state.encode()) or given.get("iss", issuer) != issuer:
        raise NotAuthenticated("the response is of another login; sign in again", code="invalid_login")
    if "error" in given or "code" not in given:
        raise _make_refusal(given.get("error"))
    return given["code"]


def read_access_token(response: TokenResponse) -> str:
    """Return the access token of a response.

    Raises:
        NotAuthenticated: the issuer refuses the code, or sends no token.
    """
    content = json.loads(response.body)
    token = content.get("access_token")
    if response.status != 200 or not isinstance(token, str) or not token:
        raise _make_refusal(content.get("error"))
    return token


def _make_refusal(error: object) -> NotAuthenticated:
    stated = f" ({error[:60]})" if isinstance(error, str) else ""
    return NotAuthenticated(f"the issuer has refused the login{stated}; sign in again", code="invalid_login")
