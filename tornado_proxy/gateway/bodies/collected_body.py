"""Passes a request to one of Tornado's own handlers, whose caller is not known while its body arrives."""

from __future__ import annotations

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest

from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.admission.capacity import HeldBytes
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.tornado_request import TornadoReceiver

_ANONYMOUS = Caller("")


def collect_body(
    request: HTTPServerRequest, delegate: HTTPMessageDelegate, services: Services, body_timeouts: BodyTimeouts
) -> TornadoReceiver:
    """Return the receiver of `request` for `delegate`; all callers that are not known have one share of the memory."""

    def count_anonymous() -> HeldBytes:
        return services.arriving.open(_ANONYMOUS, services.snapshots.current.settings.limits)

    return TornadoReceiver(request, delegate, body_timeouts, count_anonymous)
