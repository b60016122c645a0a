"""The base of every handler on the client port: its services, its request id, and errors in the provider's format."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import cached_property
from http.client import responses
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.util import ObjectDict
from tornado.web import HTTPError, RequestHandler

from tornado_proxy.domain.errors import (
    BadRequest,
    InsufficientScope,
    LimitReached,
    MethodNotAllowed,
    NotAuthenticated,
    RequestError,
    UpgradeRequired,
)
from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.gateway.http.cors import cors_headers
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.http_server.tornado_request import find_incoming
from tornado_proxy.observability.access_log import RequestLine
from tornado_proxy.providers.contract import Endpoint, Provider

_log = logging.getLogger(__name__)

#: The response header that carries our request id, by which the ledger and the log know the request.
REQUEST_ID_HEADER = "Llm-Proxy-Request-Id"


def make_request_error(status_code: int, error: BaseException | None, request_id: str) -> RequestError:
    """Return the error that a response shows for the exception of a handler, with which Tornado made `status_code`."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, HTTPError) and status_code < 500:
        bad_request = BadRequest(error.log_message or "malformed request")
        bad_request.status = status_code
        return bad_request
    return RequestError(f"internal error; the server's log has the details under {request_id}")


def log_unexpected_error(error: BaseException | None, request_id: str) -> None:
    """Log the exception of a handler with its traceback, unless it says what is wrong with the request."""
    if not isinstance(error, RequestError | HTTPError):
        _log.error("request failed", extra={"request_id": request_id}, exc_info=error)


class BaseHandler(RequestHandler):
    """A handler that responds in the format of `provider`."""

    def initialize(self, services: Services) -> None:
        """Keep the services and draw a request id."""
        self.services = services
        self.request_id = new_request_id()
        self.ui = ObjectDict()  # Tornado's own refers to the handler: a cycle that only the collector would free
        for name, value in self.cors:
            self.set_header(name, value)

    @cached_property
    def cors(self) -> list[tuple[str, str]]:
        """The headers that let the page that sent this request read the response, if its origin is allowed."""
        allowed = self.services.snapshots.current.settings.public.allow_origins
        return cors_headers(self.incoming, allowed) if allowed else []

    @property
    def incoming(self) -> IncomingRequest:
        """The request, as the proxy's own handlers know it."""
        return find_incoming(self.request)

    @cached_property
    def provider(self) -> Provider:
        """The provider whose clients use this path."""
        return self.services.snapshots.current.routes.find_provider(self.request.uri or "/")

    def clear(self) -> None:
        """Start a response without Tornado's Server, Content-Type and Date: its headers are the provider's."""
        self._headers = HTTPHeaders()
        self._write_buffer = []
        self._status_code = 200
        self._reason = responses[200]

    def compute_etag(self) -> None:
        """Return no ETag: one would turn a provider's 200 into a 304."""

    async def respond_with_error(self, error: RequestError) -> None:
        """Finish the response with `error`."""
        self.clear()
        self._set_error_headers(error)
        await self.finish(self.provider.error_body(error, self.request_id))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Finish the response with an error that nothing else handled.  Called by Tornado."""
        error = self._request_error(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self._set_error_headers(error)
        self.finish(self.provider.error_body(error, self.request_id))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log errors of the server; a caller's error is in its response."""
        log_unexpected_error(value, self.request_id)

    def _request_error(self, status_code: int, error: BaseException | None) -> RequestError:
        if status_code == 405 and not isinstance(error, RequestError):
            return MethodNotAllowed(f"method {(self.request.method or '')[:20]} is not supported")
        return make_request_error(status_code, error, self.request_id)

    def _set_error_headers(self, error: RequestError) -> None:
        self.set_status(error.status)
        for name, value in (*error_headers(error, self.request_id, self.provider), *self.cors):
            self.set_header(name, value)

    def log_rejection(self, error: RequestError, context: RequestContext[Endpoint] | None) -> None:
        """Log and count a rejected request; `context` is None if its route or credential was not accepted."""
        path = self.services.snapshots.current.routes.find_template(self.request.uri or "")
        self.services.recorder.reject(self.request_id, error, context, RequestLine(self.request.method or "", path))


def error_headers(error: RequestError, request_id: str, provider: Provider | None = None) -> list[tuple[str, str]]:
    """Return the headers of an error response, without its length.

    To a client of `provider`, the request id has that one's own header name too: SDKs show it in their exceptions.
    """
    headers = [("Content-Type", "application/json"), (REQUEST_ID_HEADER, request_id)]
    if provider is not None:
        headers.append((provider.request_id_header, request_id))
        if isinstance(error, LimitReached):
            headers += provider.rate_headers(error.states, datetime.now(UTC))
    if error.final:
        # Both SDKs obey it.  Claude Code retries even a 401 for minutes without it.
        headers.append(("x-should-retry", "false"))
    if isinstance(error, NotAuthenticated):
        headers.append(("WWW-Authenticate", "Bearer"))  # RFC 9110 section 11.6.1
    if isinstance(error, InsufficientScope):
        challenge = f'Bearer error="insufficient_scope", scope="{error.scope}"'  # RFC 6750 section 3
        headers.append(("WWW-Authenticate", challenge))
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers.append(("Allow", ", ".join(error.allowed)))  # RFC 9110 section 15.5.6
    if isinstance(error, UpgradeRequired):
        headers.append(("Upgrade", "websocket"))  # RFC 9110 section 15.5.22
    if error.client_wait_s is not None:
        headers.append(("Retry-After", str(error.client_wait_s)))
    return headers
