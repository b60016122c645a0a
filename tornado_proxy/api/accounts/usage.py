"""`GET /accounts/projects/{project_id}/usage`: the usage of a whole project, for its admins.

The rows and parameters are those of the usage API (docs/usage_api.md); clients of MeshAgent call `type` `usage_type`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from tornado_proxy.api.accounts.base_handler import AccountsHandler
from tornado_proxy.api.usage_page import find_next_target, list_page_headers, make_page
from tornado_proxy.api.usage_query import decode_arguments, read_usage_request
from tornado_proxy.domain.errors import BadRequest


class ProjectUsageHandler(AccountsHandler):
    """One request for usage.  Waits for the ledger's reader, which bounds the time of each query."""

    async def get(self, project_id: str) -> None:
        """Respond with one page of usage."""
        member = await self.identify_member(project_id)
        member.require_admin()
        assert self.caller is not None, "identify_member() sets it"
        arguments = rename_parameters(decode_arguments(self.request.query_arguments))
        request = read_usage_request(arguments, self.request.headers.get("Accept", ""), self.caller, member.project)
        asker = f"{project_id} {member.user.subject!r} {member.user.issuer!r}"
        result = await self.services.ledger.usage(replace(request.query, asker=asker))
        page = await asyncio.to_thread(make_page, result, request)
        target = find_next_target(self.request.path, self.request.query_arguments, page.next_cursor)
        for name, value in list_page_headers(request, target):
            self.set_header(name, value)
        self.respond_with_bytes(page.body)


def rename_parameters(arguments: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the parameters under the names of the usage API: `usage_type` is `type`.

    Raises:
        BadRequest: both names are used.
    """
    renamed = {"type" if name == "usage_type" else name: values for name, values in arguments.items()}
    if len(renamed) < len(arguments):
        raise BadRequest("usage_type and type are one parameter; send one of them", param="usage_type")
    return renamed
