"""Routes the requests of the admin port to their handlers; every error is JSON, that to a malformed request too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tornado.web import Application

from tornado_proxy.api.admin.base_handler import AdminHandler, error_body
from tornado_proxy.api.admin.routes import ROUTES
from tornado_proxy.api.admin.services import AdminServices
from tornado_proxy.domain.errors import NotFound
from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.gateway.base_handler import error_headers
from tornado_proxy.gateway.bodies.collected_body import collect_body
from tornado_proxy.gateway.http.malformed_request import make_malformed_error, write_rejection
from tornado_proxy.http_server.exchange import Exchange, RequestReceiver
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.request_parser import Fault
from tornado_proxy.http_server.tornado_request import make_tornado_request
from tornado_proxy.observability import access_log


class _UnknownPathHandler(AdminHandler):
    """Responds to paths that are not in the table."""

    def check_method(self) -> None:
        """Raise NotFound, whatever the method."""
        raise NotFound("the admin port has no such path; GET /openapi.json lists them")


class AdminApplication(Application):
    """The application of the admin port.

    `pages` are rules of other handlers, which check access themselves.
    `body_timeouts` are shared with the server that runs this application.
    """

    def __init__(self, admin: AdminServices, pages: Sequence[tuple[Any, ...]] = ()) -> None:
        self.body_timeouts = BodyTimeouts()
        self._services = admin.services
        super().__init__(
            [
                *((route.pattern, route.handler, {"admin": admin, "path_template": route.path}) for route in ROUTES),
                *pages,
            ],
            default_handler_class=_UnknownPathHandler,
            default_handler_args={"admin": admin, "path_template": "unknown"},
            log_function=lambda handler: None,
        )

    def make_rejection(self, fault: Fault) -> bytes:
        """Return the complete response to a request that is not served, and log it; see ClientPortServer."""
        request_id, error = new_request_id(), make_malformed_error(fault)
        access_log.log_rejection(request_id, error)
        return write_rejection(error, error_headers(error, request_id), error_body(error))

    def find_receiver(self, exchange: Exchange) -> RequestReceiver:
        """Return the receiver of a request.  Called by the server when the head is complete."""
        request = make_tornado_request(exchange)
        return collect_body(request, self.find_handler(request), self._services, self.body_timeouts)
