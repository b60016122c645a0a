"""What every handler on the client port shares: its services, its request id, and errors in the provider's shape."""

from __future__ import annotations

import logging
from functools import cached_property
from http.client import responses
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError, RequestHandler

from tornado_proxy.domain.errors import BadRequest, MethodNotAllowed, NotAuthenticated, RequestError, UpgradeRequired
from tornado_proxy.gateway.admission import new_request_id
from tornado_proxy.gateway.services import Services
from tornado_proxy.providers.contract import Provider

_log = logging.getLogger(__name__)

#: The header that names our record of a call.
REQUEST_ID_HEADER = "Llm-Proxy-Request-Id"

#: Seconds a client is asked to wait when our own state turned it away.
_RETRY_AFTER_S = 1


class BaseHandler(RequestHandler):
    """A handler that answers in the shape of `provider`."""

    def initialize(self, services: Services) -> None:
        """Take what app.py built."""
        self.services = services
        self.request_id = new_request_id()

    @cached_property
    def provider(self) -> Provider:
        """Whose client this is, by the path."""
        return self.services.snapshots.current.routes.provider_for(self.request.uri or "/")

    def clear(self) -> None:
        """Start an answer without Tornado's Server, Content-Type and Date: its headers are the provider's."""
        self._headers = HTTPHeaders()
        self._write_buffer = []
        self._status_code = 200
        self._reason = responses[200]

    def compute_etag(self) -> None:
        """No ETag: it would turn a provider's 200 into a 304."""

    async def respond_with_error(self, error: RequestError) -> None:
        """End the request with `error`."""
        self.clear()
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        if isinstance(error, NotAuthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, MethodNotAllowed) and error.allowed:
            self.set_header("Allow", ", ".join(error.allowed))
        if isinstance(error, UpgradeRequired):
            self.set_header("Upgrade", "websocket")
        if error.status == 503:
            self.set_header("Retry-After", str(_RETRY_AFTER_S))
        await self.finish(self.provider.error_body(error, self.request_id))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tornado's way out for what nothing else caught."""
        fault = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(fault, RequestError):
            error = fault
        elif status_code == 405:
            error = MethodNotAllowed(f"{(self.request.method or '')[:20]} is not taken anywhere here")
        elif isinstance(fault, HTTPError) and status_code < 500:
            error = BadRequest(fault.log_message or "the request cannot be understood")
            error.status = status_code
        else:
            error = RequestError(f"internal error; the operator finds it in the log under {self.request_id}")
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self.set_header(REQUEST_ID_HEADER, self.request_id)
        self.finish(self.provider.error_body(error, self.request_id))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what is ours to mend; a caller's fault is in its answer."""
        if not isinstance(value, RequestError | HTTPError):
            _log.error("request failed", extra={"request_id": self.request_id}, exc_info=value)
