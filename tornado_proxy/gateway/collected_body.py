"""Limits a body that Tornado collects whole before a handler sees the credential, in size and time."""

from __future__ import annotations

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest

from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.capacity import HeldBytes
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.exchange import Exchange
from tornado_proxy.http_server.request_body import BodyTimeouts, LimitedDelegate

#: Bytes of such a body: a question or a small JSON document.
_MAX_COLLECTED_BODY_BYTES = 1024 * 1024

_ANONYMOUS = Caller("")


def limit_body(
    request: HTTPServerRequest, delegate: HTTPMessageDelegate, services: Services, body_timeouts: BodyTimeouts
) -> HTTPMessageDelegate:
    """Return a delegate that limits the body of `request`, which `delegate` collects."""

    def count_anonymous() -> HeldBytes:
        """Return the count of a body whose caller is not known yet; all such callers have one share."""
        return services.arriving.open(_ANONYMOUS, services.snapshots.current.settings.limits)

    connection = request.connection
    assert isinstance(connection, Exchange)
    connection.set_max_body_size(_MAX_COLLECTED_BODY_BYTES)
    return LimitedDelegate(delegate, connection.close, body_timeouts, count_anonymous)
