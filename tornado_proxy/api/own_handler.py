"""The base of handlers of the admin port and the dashboard: routes of the proxy, whose paths no provider has."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import cached_property
from typing import Any

from tornado.web import RequestHandler

from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.gateway.base_handler import log_unexpected_error


class OwnHandler(RequestHandler):
    """A handler that responds to HEAD as to GET, sends no ETag, takes any id in a path, and logs errors with its id."""

    @cached_property
    def request_id(self) -> str:
        """The id of the request in the log; Tornado sets the first headers before it calls initialize()."""
        return new_request_id()

    def head(self, *arguments: str) -> Awaitable[None] | None:
        """Respond as to GET; Tornado leaves the body out."""
        result: Awaitable[None] | None = self.get(*arguments)
        return result

    def compute_etag(self) -> None:
        """Return no ETag: only a handler knows whether its document has a version."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Return a part of the path as text; an id that is not UTF-8 is unknown, not an error of its own."""
        return value.decode("utf-8", "replace")

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log errors of the server; the caller's errors have a line of their own."""
        log_unexpected_error(value, self.request_id)
