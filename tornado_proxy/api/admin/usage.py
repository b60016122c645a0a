"""`GET /v1/usage`: the usage API (docs/usage_api.md) over all projects, or with `project` one of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tornado_proxy.api.admin.base_handler import ACTOR, AdminHandler
from tornado_proxy.api.usage_page import find_next_target, list_page_headers, make_page
from tornado_proxy.api.usage_query import decode_arguments, read_operator_request


class AdminUsageHandler(AdminHandler):
    """One request for usage.

    Waits for the ledger's reader, which bounds the time of each query.
    """

    def check_parameters(self) -> None:
        """Leave the check to the usage query, which knows all parameters."""

    async def get(self) -> None:
        """Respond with one page of usage."""
        arguments = decode_arguments(self.request.query_arguments)
        names = self.services.snapshots.current.project_names
        request = read_operator_request(arguments, self.request.headers.get("Accept", ""), names)
        result = await self.services.ledger.usage(replace(request.query, asker=ACTOR))
        page = await asyncio.to_thread(make_page, result, request)
        target = find_next_target(self.request.path, self.request.query_arguments, page.next_cursor)
        for name, value in list_page_headers(request, target):
            self.set_header(name, value)
        self.finish(page.body)
