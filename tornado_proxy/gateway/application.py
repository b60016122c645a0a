"""Routes the requests of the client port to their handlers.

The proxy's handlers get every path except those of the REST API and the few pages, so most
requests are routed without a walk through Tornado's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.escape import utf8
from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import Application

from tornado_proxy.gateway.base_handler import error_headers
from tornado_proxy.gateway.collected_body import limit_body
from tornado_proxy.gateway.context import new_request_id
from tornado_proxy.gateway.cors import is_preflight
from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.gateway.malformed_request import make_malformed_error, write_rejection
from tornado_proxy.gateway.preflight import PreflightHandler
from tornado_proxy.gateway.realtime.handler import ProxyWebSocketHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.connection import ClientConnection
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.request_parser import Fault
from tornado_proxy.http_server.server import IdleConnections

#: The beginnings of the paths that are no provider's.
_RULED_PATHS = ("/accounts/", "/dashboard")


class ClientApplication(Application):
    """Routes a request to the handler that `rules` name, else to the proxy's handlers.

    `rules` hold for paths below /accounts/ and /dashboard, for `api_paths`, and for GET and HEAD of `page_paths`.
    `idle_connections` and `body_timeouts` are shared with the server that runs this application.
    """

    def __init__(
        self,
        rules: Sequence[Rule | tuple[Any, ...]],
        services: Services,
        page_paths: frozenset[str] = frozenset(),
        api_paths: frozenset[str] = frozenset(),
    ) -> None:
        self.idle_connections = IdleConnections()
        self.body_timeouts = BodyTimeouts()
        self._services = services
        self._page_paths = page_paths
        self._api_paths = api_paths
        self._handler_arguments = {"services": services}
        super().__init__(list(rules), log_function=lambda handler: None)

    def make_rejection(self, fault: Fault) -> bytes:
        """Return the complete response to a request that is not served, and log the rejection."""
        services, request_id = self._services, new_request_id()
        error = make_malformed_error(fault)
        services.recorder.reject(request_id, error, None)
        provider = services.snapshots.current.routes.find_provider(fault.target)
        body = utf8(provider.error_body(error, request_id))
        return write_rejection(error, error_headers(error, request_id, provider), body)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return the delegate that receives `request`.  Called by Tornado when the request's headers are complete."""
        assert isinstance(request.server_connection, ClientConnection)
        self.idle_connections.discard(request.server_connection)
        if request.method == "OPTIONS":
            allowed = self._services.snapshots.current.settings.public.allow_origins
            if is_preflight(request.headers, allowed):
                return self.get_handler_delegate(request, PreflightHandler, self._handler_arguments)
        is_page = request.path in self._page_paths and request.method in ("GET", "HEAD")
        if is_page or request.path in self._api_paths or request.path.startswith(_RULED_PATHS):
            delegate = self.default_router.find_handler(request, **kwargs)
            if delegate is not None:
                return limit_body(request, delegate, self._services, self.body_timeouts)
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            delegate = self.get_handler_delegate(request, ProxyWebSocketHandler, self._handler_arguments)
            return limit_body(request, delegate, self._services, self.body_timeouts)
        return ProxyHandler(request, self._services, self.body_timeouts)
