"""Routes the requests of the client port to their handlers.

The proxy's handlers get every path except those of the REST API and the few pages, so most
requests are routed without a walk through Tornado's rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.escape import utf8
from tornado.routing import Rule
from tornado.web import Application

from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.gateway.base_handler import BaseHandler, error_headers
from tornado_proxy.gateway.bodies.collected_body import collect_body
from tornado_proxy.gateway.http.cors import is_preflight
from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.gateway.http.malformed_request import make_malformed_error, write_rejection
from tornado_proxy.gateway.http.preflight import PreflightHandler
from tornado_proxy.gateway.realtime.handler import ProxyWebSocketHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.exchange import Exchange, RequestReceiver
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.request_parser import Fault
from tornado_proxy.http_server.tornado_request import make_tornado_request

#: The beginnings of the paths that are no provider's.
_RULED_PATHS = ("/accounts/", "/dashboard")


class ClientApplication(Application):
    """Routes a request to the handler that `rules` name, else to the proxy's handlers.

    `rules` hold for paths below /accounts/ and /dashboard, for `api_paths`, and for GET and HEAD of `page_paths`.
    `body_timeouts` are shared with the server that runs this application.
    """

    def __init__(
        self,
        rules: Sequence[Rule | tuple[Any, ...]],
        services: Services,
        page_paths: frozenset[str] = frozenset(),
        api_paths: frozenset[str] = frozenset(),
    ) -> None:
        self.body_timeouts = BodyTimeouts()
        self._services = services
        self._page_paths = page_paths
        self._api_paths = api_paths
        super().__init__(list(rules), log_function=lambda handler: None)

    def make_rejection(self, fault: Fault) -> bytes:
        """Return the complete response to a request that is not served, and log the rejection."""
        services, request_id = self._services, new_request_id()
        error = make_malformed_error(fault)
        services.recorder.reject(request_id, error, None)
        provider = services.snapshots.current.routes.find_provider(fault.target)
        body = utf8(provider.error_body(error, request_id))
        return write_rejection(error, error_headers(error, request_id, provider), body)

    def find_receiver(self, exchange: Exchange) -> RequestReceiver:
        """Return the receiver of a request.  Called by the server when the head is complete."""
        incoming = exchange.incoming
        if incoming.method == "OPTIONS" and self._is_preflight(incoming):
            return self._receive_with(PreflightHandler, exchange)
        if self._may_match_rule(incoming):
            request = make_tornado_request(exchange)
            delegate = self.default_router.find_handler(request)
            if delegate is not None:
                return collect_body(request, delegate, self._services, self.body_timeouts)
        if incoming.method == "GET" and incoming.header("upgrade").lower() == "websocket":
            return self._receive_with(ProxyWebSocketHandler, exchange)
        return ProxyHandler(exchange, self._services, self.body_timeouts)

    def _is_preflight(self, incoming: IncomingRequest) -> bool:
        return is_preflight(incoming, self._services.snapshots.current.settings.public.allow_origins)

    def _may_match_rule(self, incoming: IncomingRequest) -> bool:
        path = incoming.target.partition("?")[0]
        is_page = path in self._page_paths and incoming.method in ("GET", "HEAD")
        return is_page or path in self._api_paths or path.startswith(_RULED_PATHS)

    def _receive_with(self, handler: type[BaseHandler], exchange: Exchange) -> RequestReceiver:
        request = make_tornado_request(exchange)
        delegate = self.get_handler_delegate(request, handler, {"services": self._services})
        return collect_body(request, delegate, self._services, self.body_timeouts)
