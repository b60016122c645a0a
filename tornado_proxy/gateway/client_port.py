"""The client port: Tornado's HTTP server and its application, with less on the way of a request.

What differs from Tornado's own, each for a measured reason (docs/performance.md):

- Nagle's algorithm is off for good; Tornado turns it on again after each answer.
- Idle connections are ended by one sweep in place of a timer for each request.
- A request goes to the proxy's handler without a walk through the rules, unless another one could be meant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream
from tornado.routing import Rule
from tornado.web import Application

from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.gateway.http.request_delegate import RequestDelegate
from tornado_proxy.gateway.realtime.handler import ProxyWebSocketHandler
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server.body_timeout import BodyTimeouts
from tornado_proxy.http_server.fd_limits import FdLimitedServer

#: Bytes of a request's head; the providers' own limits are near.
_MAX_HEADER_BYTES = 64 * 1024

#: Above every configured limit: the handler enforces limits.max_body_mb, with an answer that an SDK understands.
_NO_LIMIT_BYTES = 1 << 50

#: Seconds that a connection may be open without a whole request head; Tornado's own limit.
_IDLE_S = 3600.0

#: Seconds between two looks for such connections, and for requests whose body has stopped coming.
_SWEEP_S = 30.0


class Heads:
    """The connections on which the head of a request is awaited, and since when (the loop's time)."""

    def __init__(self) -> None:
        self._awaited: dict[object, float] = {}

    def awaited(self, connection: object, now: float) -> None:
        """The next request may come."""
        self._awaited[connection] = now

    def came(self, connection: object) -> None:
        """It has come, or the connection has closed."""
        self._awaited.pop(connection, None)

    def late(self, now: float) -> list[object]:
        """Connections that have waited for too long."""
        return [connection for connection, since in self._awaited.items() if now - since > _IDLE_S]


class ClientApplication(Application):
    """Sends a request to the proxy's handlers, or where `rules` say when it is below /accounts/."""

    def __init__(self, rules: Sequence[Rule | tuple[Any, ...]], services: Services) -> None:
        self.heads = Heads()
        self.bodies = BodyTimeouts()
        self._shared = {"services": services}
        super().__init__(list(rules), log_function=lambda handler: None)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler of a request whose head has come."""
        self.heads.came(request.server_connection)
        if request.path.startswith("/accounts/"):
            found = self.default_router.find_handler(request, **kwargs)
            if found is not None:
                return found
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return self.get_handler_delegate(request, ProxyWebSocketHandler, self._shared)
        return RequestDelegate(ProxyHandler(self, request, **self._shared), self.bodies)


class ClientServer(FdLimitedServer):
    """The HTTP server of the client port.  Make it with `ClientServer(application)` on a running loop."""

    others_for_each = 1  # a connection to a provider

    def initialize(self, application: ClientApplication) -> None:  # type: ignore[override]  # as Tornado's own does
        """Called by Tornado's constructor."""
        super().initialize(application, max_header_size=_MAX_HEADER_BYTES, max_body_size=_NO_LIMIT_BYTES)
        self.conn_params.header_timeout = None
        self._heads = application.heads
        self._bodies = application.bodies
        self._asyncio_loop = asyncio.get_running_loop()
        self._sweep = self._asyncio_loop.call_later(_SWEEP_S, self._end_idle_connections)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Take a new connection."""
        # Nagle holds small chunks for the client's delayed ACK: p99 22-27 ms instead of 0.3.
        stream.set_nodelay(True)
        stream.set_nodelay = _leave_it  # type: ignore[method-assign]  # Tornado would undo it after each answer
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado when a connection is ready for its next request."""
        self._heads.awaited(server_conn, self._asyncio_loop.time())
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Called by Tornado when a connection has closed."""
        self._heads.came(server_conn)
        assert isinstance(server_conn, HTTP1ServerConnection)
        if server_conn.stream.error is not None:
            server_conn.stream.error.__traceback__ = None  # its frames hold the stream, which holds the error
        super().on_close(server_conn)

    def stop(self) -> None:
        """Accept no more connections."""
        self._sweep.cancel()
        super().stop()

    def _end_idle_connections(self) -> None:
        now = self._asyncio_loop.time()
        for connection in self._heads.late(now):
            assert isinstance(connection, HTTP1ServerConnection)
            connection.stream.close()
        self._bodies.look(now)
        self._sweep = self._asyncio_loop.call_later(_SWEEP_S, self._end_idle_connections)


def _leave_it(value: bool) -> None:  # noqa: FBT001  # Tornado's signature
    """In place of IOStream.set_nodelay."""
