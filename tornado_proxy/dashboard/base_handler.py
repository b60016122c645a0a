"""The base of every page: session, viewer, headers, errors, one log line each.

A page defines get() or post(), calls identify() and show() or send_rows(), and raises RequestError.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tornado_proxy.api.admin.access_checks import check_host
from tornado_proxy.api.own_handler import OwnHandler
from tornado_proxy.dashboard.page import Page, list_links
from tornado_proxy.dashboard.parameters import PageUrl, make_url, read_parameters
from tornado_proxy.dashboard.site import ROOT, Site
from tornado_proxy.dashboard.viewer import Viewer, find_viewer
from tornado_proxy.domain.errors import NotAllowed, NotAuthenticated
from tornado_proxy.domain.identity import Caller, Secret
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, make_request_error
from tornado_proxy.gateway.http.public_url import own_root
from tornado_proxy.http_server.tornado_request import find_incoming
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.snapshot import Snapshot
from tornado_proxy.state.dashboard_session_table import Identity, OperatorIdentity
from tornado_proxy.state.dashboard_sessions import find_session
from tornado_proxy.wire.csv_cells import write_members

#: Scripts, styles and requests of this origin only; nothing inline, no frames.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class DashboardHandler(OwnHandler):
    """A page of the dashboard.  Waits for the ledger's reader and for the state's thread, which bound the time."""

    name: ClassVar[str] = ""

    def initialize(self, site: Site, path_template: str) -> None:
        """Keep the site and the template of the path, which log lines name."""
        self.site = site
        self.services = site.services
        self.path_template = path_template
        self.viewer: Viewer | None = None

    @cached_property
    def snapshot(self) -> Snapshot:
        """The configuration that the request keeps to its end."""
        return self.services.snapshots.current

    @cached_property
    def own_root(self) -> str:
        """The URL under which the browser reaches this port, without a final slash; "" if no header states a host."""
        incoming, public = find_incoming(self.request), self.snapshot.settings.public
        # The configured URL is that of the client port.
        return own_root(incoming, replace(public, url=None) if self.site.is_admin else public)

    @cached_property
    def base(self) -> str:
        """The path of the dashboard as the browser sees it: with the prefix that a proxy in front may have removed."""
        return urlsplit(self.own_root).path + ROOT

    @cached_property
    def now(self) -> datetime:
        """The time of the request, aware UTC."""
        return datetime.now(UTC)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The parameters of the URL except `project`, which chooses the viewer's project; the operator's is a filter.

        Raises:
            BadRequest: a parameter is repeated.
        """
        given = read_parameters(self.request.query_arguments)
        if not self.site.is_admin:
            given.pop("project", None)
        return given

    def prepare(self) -> None:
        """Check the Host header on the admin port.  Called by Tornado first."""
        if self.site.is_admin:
            check_host(self.request.headers, self.snapshot.settings.admin_access)

    async def identify(self) -> Viewer:
        """Return the viewer of the request's session.

        Raises:
            NotAuthenticated: there is no valid session.
            NotAllowed: the URL names a project that the viewer may not see.
        """
        identity = await self.find_identity()
        if identity is None:
            raise NotAuthenticated("sign in to see this page", code="sign_in_required")
        chosen = read_parameters(self.request.query_arguments).get("project")
        self.viewer = find_viewer(identity, self.snapshot.projects, chosen)
        return self.viewer

    async def find_identity(self) -> Identity | None:
        """Return the identity of the request's session if it is one of this port, else None."""
        cookie = self.get_cookie(self.site.cookie)
        if not cookie:
            return None
        with self.site.lookups.count():
            identity = await self.site.state.read(lambda store: find_session(store, Secret(cookie), self.now))
        return identity if isinstance(identity, OperatorIdentity) == self.site.is_admin else None

    def show(self, template: str, title: str, *, status: int = 200, **values: object) -> None:
        """Finish the response with a page."""
        self.set_status(status)
        page = Page(title, self.base, self.viewer, self.name, list_links(self.base, self.viewer, self.name))
        body = self.site.render(template, page=page, files=self.site.files, **values)
        self.log_request(status)
        self.finish(body)

    def send_rows(
        self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]], trusted: Collection[str]
    ) -> None:
        """Finish the response with the rows of a page as CSV or JSON, whichever the URL asks for.

        Args:
            name: The name of the file, without its ending.
            columns: The members of the rows.
            rows: The rows.
            trusted: The columns that hold no text of clients, which CSV leaves as they are.
        """
        if self.parameters["format"] == "csv":
            out = io.StringIO(newline="")
            write_members(out, columns, rows, trusted=trusted)
            self.set_header("Content-Type", "text/csv; charset=utf-8; header=present")
            self.set_header("Content-Disposition", f'attachment; filename="{name}.csv"')
            body = out.getvalue().encode("utf-8", "replace")
        else:
            self.send_document({name: [{column: row[column] for column in columns} for row in rows]})
            return
        self.log_request()
        self.finish(body)

    def send_document(self, document: Mapping[str, object]) -> None:
        """Finish the response with a JSON document."""
        self.set_header("Content-Type", "application/json")
        self.log_request()
        self.finish(json.dumps(document).encode() + b"\n")

    def log_request(self, status: int = 200) -> None:
        """Write the log line of a request that is served."""
        access_log.log_account_request(self.request_id, status, self._line, self._caller)

    def set_default_headers(self) -> None:
        """Set the headers of every response."""
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.set_header(REQUEST_ID_HEADER, self.request_id)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Finish the response with an error page.  Called by Tornado for every exception."""
        error = make_request_error(status_code, kwargs.get("exc_info", (None, None, None))[1], self.request_id)
        access_log.log_rejection(self.request_id, error, self._line, caller=self._caller)
        self.set_status(error.status)
        if error.client_wait_s is not None:
            self.set_header("Retry-After", str(error.client_wait_s))
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")  # RFC 9110 section 11.6.1
        if self.request.query_arguments.get("format", [b"html"])[-1] in (b"csv", b"json"):
            self.set_header("Content-Type", "application/json")
            self.finish(
                json.dumps({"error": {"message": error.client_message, "code": error.code, "param": error.param}})
            )
            return
        page = Page("Sign in" if error.status == 401 else "Error", self.base, self.viewer)
        template = "sign_in.html" if error.status == 401 else "error.html"
        values = {
            "error": error,
            "request_id": self.request_id,
            "start_url": self._start_url,
            "is_admin": self.site.is_admin,
        }
        self.finish(self.site.render(template, page=page, files=self.site.files, **values))

    def check_own_origin(self) -> None:
        """Raise NotAllowed if another site has made the browser send this request."""
        if self.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise NotAllowed("another site has sent this form; open the dashboard itself", code="foreign_origin")

    def make_page_url(self, path: str, parameters: Mapping[str, str]) -> PageUrl:
        """Return the URL of a page of the dashboard; it names the viewer's project if there are several."""
        project = None if self.viewer is None else self.viewer.project_parameter
        return PageUrl(self.base + path, {"project": project, **parameters})

    @property
    def _start_url(self) -> str | None:
        """The URL of a login that leads back to this page; None on the admin port, or without an issuer."""
        if self.site.is_admin or not any(client.issuer.login is not None for client in self.snapshot.issuers):
            return None
        is_page = self.request.method == "GET" and not self.path_template.startswith(f"{ROOT}/sign-")
        wanted = (self.request.uri or "").partition(ROOT)[2] if is_page else ""
        return make_url(f"{self.base}/sign-in/start", {"next": wanted or None})

    @property
    def _line(self) -> RequestLine:
        return RequestLine(self.request.method or "", self.path_template)

    @property
    def _caller(self) -> Caller | None:
        return None if self.viewer is None else self.viewer.caller
