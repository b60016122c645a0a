"""Routes the requests of the client port to their handlers.

The proxy's handlers get every path except those below /accounts/ that a rule matches, so most requests are routed
without a walk through Tornado's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import Application

from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.gateway.realtime.handler import ProxyWebSocketHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.request_body import BodyTimeouts, RequestDelegate
from tornado_proxy.http_server.server import IdleConnections


class ClientApplication(Application):
    """Routes a request to the handler that `rules` name for a path below /accounts/, else to the proxy's handlers.

    `idle_connections` and `body_timeouts` are shared with the server that runs this application.
    """

    def __init__(self, rules: Sequence[Rule | tuple[Any, ...]], services: Services) -> None:
        self.idle_connections = IdleConnections()
        self.body_timeouts = BodyTimeouts()
        self._handler_arguments = {"services": services}
        super().__init__(list(rules), log_function=lambda handler: None)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return the delegate that receives `request`.  Called by Tornado when the request's headers are complete."""
        self.idle_connections.discard(request.server_connection)
        if request.path.startswith("/accounts/"):
            delegate = self.default_router.find_handler(request, **kwargs)
            if delegate is not None:
                return delegate
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return self.get_handler_delegate(request, ProxyWebSocketHandler, self._handler_arguments)
        return RequestDelegate(ProxyHandler(self, request, **self._handler_arguments), self.body_timeouts)
