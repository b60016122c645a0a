"""The usage API on the client port: `GET /accounts/projects/{project_id}/llm-proxy/usage` (docs/usage_api.md).

The credential is the same as for a provider's path.  A caller reads its own usage, a project admin the project's.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from tornado.iostream import StreamClosedError

from tornado_proxy.api.project_handler import ProjectHandler
from tornado_proxy.api.usage_page import find_next_target, list_page_headers, make_page
from tornado_proxy.api.usage_query import decode_arguments, read_usage_request
from tornado_proxy.domain.errors import RequestError
from tornado_proxy.gateway.base_handler import REQUEST_ID_HEADER

#: The route; its group is the project id.
USAGE_PATH = r"/accounts/projects/([^/]+)/llm-proxy/usage"


class UsageHandler(ProjectHandler):
    """One request for usage.

    Waits for the ledger's reader, which bounds the time of each query.
    """

    path_template = "/accounts/projects/{id}/llm-proxy/usage"
    methods = ("GET", "HEAD")

    async def get(self, project_id: str) -> None:
        """Respond with one page of usage."""
        try:
            caller, project = await self.authenticate(project_id)
            arguments = decode_arguments(self.request.query_arguments)
            request = read_usage_request(arguments, self.request.headers.get("Accept", ""), caller, project)
            # A participant and a user of one name are two callers, and each project has its own.
            asker = f"{project.id} {caller.participant!r} {caller.user!r} {caller.issuer!r}"
            result = await self.services.ledger.usage(replace(request.query, asker=asker))
            page = await asyncio.to_thread(make_page, result, request)
        except RequestError as error:
            await self.reject(error)
            return
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        target = find_next_target(self.request.path, self.request.query_arguments, page.next_cursor)
        for name, value in list_page_headers(request, target):
            self.set_header(name, value)
        with contextlib.suppress(StreamClosedError):  # the client has disconnected
            await self.finish(page.body)

    head = get
