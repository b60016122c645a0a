"""The base of the handlers of one project on the client port: credential, refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import ClassVar

from tornado_proxy.api.accounts.callers import find_caller
from tornado_proxy.domain.errors import MethodNotAllowed, RequestError
from tornado_proxy.domain.identity import Caller, Project
from tornado_proxy.gateway.base_handler import BaseHandler
from tornado_proxy.observability import access_log
from tornado_proxy.observability.access_log import RequestLine

#: A method of a handler; its arguments are the groups of its route.
_Method = Callable[..., Awaitable[None]]


class ProjectHandler(BaseHandler):
    """A handler of a path that names a project.

    Attributes:
        path_template: The path in log lines.
        methods: The methods that it supports, for the header Allow.
    """

    path_template: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]

    async def authenticate(self, project_id: str) -> tuple[Caller, Project]:
        """Return the caller and its project.

        Raises:
            NotAuthenticated: the credential is missing or invalid.
            NotAllowed: the credential is for another project.
            ServiceError: an identity provider cannot be asked.
        """
        headers = self.request.headers.get_all()
        return await find_caller(self.services.snapshots.current, headers, project_id, datetime.now(UTC))

    async def reject(self, error: RequestError) -> None:
        """Log the error and respond with it."""
        access_log.log_rejection(self.request_id, error, RequestLine(self.request.method or "", self.path_template))
        await self.respond_with_error(error)

    async def reject_method(self, project_id: str, *ids: str) -> None:
        """Respond that the method is not supported."""
        supported = [method for method in self.methods if method != "HEAD"]
        name = self.path_template.partition("/llm-proxy/")[2] or "this path"
        rule = f"{', '.join(supported)}{' only' if len(supported) == 1 else ''}"
        await self.reject(MethodNotAllowed(f"{name} supports {rule}", self.methods))

    post: _Method = reject_method
    put: _Method = reject_method
    patch: _Method = reject_method
    delete: _Method = reject_method
    options: _Method = reject_method
