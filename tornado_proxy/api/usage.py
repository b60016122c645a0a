"""The usage API on the client port: `GET /accounts/projects/{project_id}/llm-proxy/usage` (docs/usage_api.md).

The caller comes with the same credential as to a provider's path, and sees its own usage; an admin sees the project's.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError

from tornado_proxy.api.usage_page import Page, make_page
from tornado_proxy.api.usage_query import UsageRequest, read_usage_request
from tornado_proxy.auth.credentials import find_token
from tornado_proxy.domain.errors import MethodNotAllowed, NotAllowed, RequestError
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.observability import access_log

#: Where it is served; the group is the project's id.
USAGE_PATH = r"/accounts/projects/([^/]+)/llm-proxy/usage"

_CREDENTIAL_HEADERS = ("authorization",)


class UsageHandler(BaseHandler):
    """One question about usage.

    Waits: for the ledger's reader, which ends each question in bounded time.
    """

    async def get(self, project_id: str) -> None:
        """Answer it."""
        try:
            caller, project = self._authenticate(project_id)
            arguments = {
                name: [value.decode("utf-8", "replace") for value in values]
                for name, values in self.request.query_arguments.items()
            }
            request = read_usage_request(arguments, self.request.headers.get("Accept", ""), caller, project)
            answer = await self.services.ledger.usage(request.question)
            page = await asyncio.to_thread(make_page, answer, request)
        except RequestError as error:
            access_log.log_rejection(self.request_id, error)
            await self.respond_with_error(error)
            return
        self._set_head(request, page)
        with contextlib.suppress(StreamClosedError):  # the client has gone; there is nobody to tell
            await self.finish(page.body)

    async def _refuse_method(self, project_id: str) -> None:
        await self.respond_with_error(MethodNotAllowed("usage is read with GET", ("GET",)))

    head = post = put = patch = delete = options = _refuse_method

    def _authenticate(self, project_id: str) -> tuple[Caller, Project]:
        """The caller, and the project that its credential is for.

        Raises:
            NotAuthenticated: there is no valid credential.
            NotAllowed: it is one for another project.
        """
        snapshot = self.services.snapshots.current
        token = find_token(self.request.headers.get_all(), _CREDENTIAL_HEADERS)
        caller = snapshot.authenticator.authenticate(token, datetime.now(UTC))
        if caller.project_id != project_id:
            raise NotAllowed("your token is for another project; put the id of its own project into the path")
        return caller, snapshot.projects[caller.project_id]

    def _set_head(self, request: UsageRequest, page: Page) -> None:
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        self.set_header("Cache-Control", "no-store")
        if request.csv:
            self.set_header("Content-Type", "text/csv; charset=utf-8; header=present")
            self.set_header("Content-Disposition", 'attachment; filename="usage.csv"')
        else:
            self.set_header("Content-Type", "application/json")
        if page.next_cursor is not None:
            self.set_header("Link", f'<{self._next_target(page.next_cursor)}>; rel="next"')

    def _next_target(self, cursor: str) -> str:
        """The target of the next page: this one's query with another cursor (RFC 8288)."""
        query = [(name, values[-1]) for name, values in self.request.query_arguments.items() if name != "cursor"]
        return f"{self.request.path}?{urlencode([*query, ('cursor', cursor.encode())])}"
