"""Routes the requests of the client port to their handlers.

The proxy's handlers get every path except those below /accounts/ that a rule matches and the few pages, so most
requests are routed without a walk through Tornado's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.escape import utf8
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Rule
from tornado.web import Application

from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.base_handler import error_headers
from tornado_proxy.gateway.capacity import HeldBytes
from tornado_proxy.gateway.context import new_request_id
from tornado_proxy.gateway.cors import is_preflight
from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.gateway.preflight import PreflightHandler
from tornado_proxy.gateway.realtime.handler import ProxyWebSocketHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.connection import ClientConnection
from tornado_proxy.http_server.request_body import BodyTimeouts, LimitedDelegate, RequestDelegate
from tornado_proxy.http_server.server import IdleConnections

#: Bytes of a body below /accounts/, or of a WebSocket upgrade: a question or a small JSON document.
_MAX_COLLECTED_BODY_BYTES = 1024 * 1024

_ANONYMOUS = Caller("")


class ClientApplication(Application):
    """Routes a request to the handler that `rules` name, else to the proxy's handlers.

    `rules` hold for paths below /accounts/, and for GET and HEAD of `page_paths`.
    `idle_connections` and `body_timeouts` are shared with the server that runs this application.
    """

    def __init__(
        self, rules: Sequence[Rule | tuple[Any, ...]], services: Services, page_paths: frozenset[str] = frozenset()
    ) -> None:
        self.idle_connections = IdleConnections()
        self.body_timeouts = BodyTimeouts()
        self._services = services
        self._page_paths = page_paths
        self._handler_arguments = {"services": services}
        super().__init__(list(rules), log_function=lambda handler: None)

    def make_rejection(self, target: str, fault: str) -> bytes:
        """Return the complete response to a request that is not valid HTTP, and log the rejection.

        Args:
            target: Its target, as far as it is known.
            fault: The rule that it breaks, without bytes of the client.
        """
        services, request_id = self._services, new_request_id()
        error = BadRequest(f"the request is not valid HTTP: {fault[:1].lower()}{fault[1:]}", code="malformed_request")
        services.recorder.reject(request_id, error, None)
        provider = services.snapshots.current.routes.find_provider(target)
        body = utf8(provider.error_body(error, request_id))
        headers = [
            *error_headers(error, request_id, provider),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"HTTP/1.1 {error.status} Bad Request\r\n{lines}\r\n".encode("latin-1") + body

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return the delegate that receives `request`.  Called by Tornado when the request's headers are complete."""
        assert isinstance(request.server_connection, ClientConnection)
        self.idle_connections.discard(request.server_connection)
        if request.method == "OPTIONS":
            allowed = self._services.snapshots.current.settings.public.allow_origins
            if is_preflight(request.headers, allowed):
                return self.get_handler_delegate(request, PreflightHandler, self._handler_arguments)
        is_page = request.path in self._page_paths and request.method in ("GET", "HEAD")
        if is_page or request.path.startswith("/accounts/"):
            delegate = self.default_router.find_handler(request, **kwargs)
            if delegate is not None:
                return self._limit_body(request, delegate)
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            delegate = self.get_handler_delegate(request, ProxyWebSocketHandler, self._handler_arguments)
            return self._limit_body(request, delegate)
        return RequestDelegate(ProxyHandler(self, request, **self._handler_arguments), self.body_timeouts)

    def _limit_body(self, request: HTTPServerRequest, delegate: HTTPMessageDelegate) -> HTTPMessageDelegate:
        """Limit a body that Tornado collects whole before the handler sees the credential, in size and time."""
        connection = request.connection
        assert isinstance(connection, HTTP1Connection)
        connection.set_max_body_size(_MAX_COLLECTED_BODY_BYTES)
        return LimitedDelegate(delegate, connection.close, self.body_timeouts, self._count_anonymous)

    def _count_anonymous(self) -> HeldBytes:
        """Return the count of a body whose caller is not known yet; all such callers have one share."""
        limits = self._services.snapshots.current.settings.limits
        return self._services.arriving.open(_ANONYMOUS, limits)
