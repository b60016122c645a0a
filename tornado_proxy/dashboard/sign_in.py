"""Sign in with a one-time link, and sign out.

GET  /dashboard/sign-in?link=...   a page with a button: a program that previews or prefetches links does not use it up
POST /dashboard/sign-in            uses the link up, and sets the cookie
POST /dashboard/sign-out           ends the session

The cookie is SameSite=Strict, so that a request which another site causes has no session.
"""

from __future__ import annotations

from tornado_proxy.dashboard.base_handler import DashboardHandler
from tornado_proxy.dashboard.site import ROOT
from tornado_proxy.domain.errors import BadRequest, NotAuthenticated
from tornado_proxy.domain.identity import Secret
from tornado_proxy.state.dashboard_session_table import OperatorIdentity
from tornado_proxy.state.dashboard_sessions import (
    LINK_LIFETIME,
    SESSION_LIFETIME,
    StartedSession,
    end_session,
    find_link,
    use_link,
)

#: The path of the page that a link leads to, and those of a login at an issuer.
SIGN_IN_PATH = f"{ROOT}/sign-in"
START_PATH, CALLBACK_PATH = f"{SIGN_IN_PATH}/start", f"{SIGN_IN_PATH}/callback"


class SessionHandler(DashboardHandler):
    """A handler that starts or ends sessions."""

    def set_session_cookie(self, session: StartedSession) -> None:
        """Set the cookie of a session."""
        self.set_cookie(
            self.site.cookie,
            session.secret.reveal(),
            path=self.base,
            max_age=int(SESSION_LIFETIME.total_seconds()),
            httponly=True,
            samesite="Strict",
            secure=self.own_root.startswith("https:"),
        )

    @property
    def redirect_uri(self) -> str:
        """The URL to which an issuer sends the browser back."""
        return f"{self.own_root}{CALLBACK_PATH}"

    def read_form(self, name: str) -> str:
        """Return a field of the request's form.

        Raises:
            BadRequest: it is missing or repeated.
        """
        values = self.request.body_arguments.get(name, [])
        if len(values) != 1:
            raise BadRequest(f"the form needs one field {name}", param=name)
        return values[0].decode("utf-8", "replace")


class SignInHandler(SessionHandler):
    """Signs in with a one-time link."""

    async def get(self) -> None:
        """Show the button that uses the link, or how to get a link."""
        link = self.parameters.get("link")
        if link is None:
            raise NotAuthenticated("sign in to see the dashboard", code="sign_in_required")
        with self.site.lookups.count():
            identity = await self.site.state.read(lambda store: find_link(store, Secret(link), self.now))
        # The cookie of a link of the other port would never reach its pages.
        if identity is None or isinstance(identity, OperatorIdentity) != self.site.is_admin:
            raise NotAuthenticated(
                f"this link was used, is older than {LINK_LIFETIME.seconds} seconds, or is for another port; make "
                "another one",
                code="invalid_link",
            )
        self.show("use_link.html", "Sign in", link=link)

    async def post(self) -> None:
        """Use the link up, and go to the dashboard."""
        self.check_own_origin()
        link = Secret(self.read_form("link"))
        with self.site.lookups.count():
            session = await self.site.state.change(lambda store: use_link(store, link, self.now))
        self.set_session_cookie(session)
        self.redirect(f"{self.base}/", status=303)


class SignOutHandler(SessionHandler):
    """Signs out."""

    async def post(self) -> None:
        """End the session, and show how to sign in again."""
        self.check_own_origin()
        cookie = self.get_cookie(self.site.cookie)
        if cookie and await self.find_identity() is not None:
            await self.site.state.change(lambda store: end_session(store, Secret(cookie)))
        self.clear_cookie(self.site.cookie, path=self.base)
        self.redirect(f"{self.base}/sign-in", status=303)
