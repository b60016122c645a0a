"""The usage API on the client port: `GET /accounts/projects/{project_id}/llm-proxy/usage` (docs/usage_api.md).

The credential is the same as for a provider's path.  A caller reads its own usage, a project admin the project's.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime

from tornado.iostream import StreamClosedError

from tornado_proxy.api.usage_page import find_next_target, list_page_headers, make_page
from tornado_proxy.api.usage_query import decode_arguments, read_usage_request
from tornado_proxy.auth.credentials import find_token, list_stated_projects
from tornado_proxy.domain.errors import MethodNotAllowed, NotAllowed, RequestError
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER, BaseHandler
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import RequestLine

#: The route; its group is the project id.
USAGE_PATH = r"/accounts/projects/([^/]+)/llm-proxy/usage"

#: The path in log lines.
_PATH_TEMPLATE = "/accounts/projects/{id}/llm-proxy/usage"

_CREDENTIAL_HEADERS = ("authorization",)


class UsageHandler(BaseHandler):
    """One request for usage.

    Waits for the ledger's reader, which bounds the time of each query.
    """

    async def get(self, project_id: str) -> None:
        """Respond with one page of usage."""
        try:
            caller, project = await self._authenticate(project_id)
            arguments = decode_arguments(self.request.query_arguments)
            request = read_usage_request(arguments, self.request.headers.get("Accept", ""), caller, project)
            # A participant and a user of one name are two callers, and each project has its own.
            asker = f"{project.id} {caller.participant!r} {caller.user!r} {caller.issuer!r}"
            result = await self.services.ledger.usage(replace(request.query, asker=asker))
            page = await asyncio.to_thread(make_page, result, request)
        except RequestError as error:
            await self._reject(error)
            return
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        target = find_next_target(self.request.path, self.request.query_arguments, page.next_cursor)
        for name, value in list_page_headers(request, target):
            self.set_header(name, value)
        with contextlib.suppress(StreamClosedError):  # the client has disconnected
            await self.finish(page.body)

    async def _reject_method(self, project_id: str) -> None:
        await self._reject(MethodNotAllowed("usage supports GET only", ("GET", "HEAD")))

    async def _reject(self, error: RequestError) -> None:
        access_log.log_rejection(self.request_id, error, RequestLine(self.request.method or "", _PATH_TEMPLATE))
        await self.respond_with_error(error)

    head = get
    post = put = patch = delete = options = _reject_method

    async def _authenticate(self, project_id: str) -> tuple[Caller, Project]:
        """Return the caller and its project.

        Raises:
            NotAuthenticated: the credential is missing or invalid.
            NotAllowed: the credential is for another project.
            ServiceError: an identity provider cannot be asked.
        """
        snapshot = self.services.snapshots.current
        token = find_token(
            self.request.headers.get_all(),
            _CREDENTIAL_HEADERS,
            opaque=snapshot.authenticator.accepts_opaque_tokens,
        )
        stated = list_stated_projects(self.request.headers.get_all())
        identified = snapshot.authenticator.authenticate(token, datetime.now(UTC), stated_projects=stated)
        caller = identified if isinstance(identified, Caller) else await identified
        if caller.project_id != project_id:
            raise NotAllowed("your token is for another project; use the id of its own project in the path")
        return caller, snapshot.projects[caller.project_id]
