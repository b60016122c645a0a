"""The HTTP server of the client port, on top of Tornado's.

It differs from Tornado's server in three ways, each for a measured reason (docs/performance.md):

- Nagle's algorithm stays off; Tornado turns it on again after each response.
- One periodic sweep closes idle connections and times out stalled request bodies, instead of a timer per request.
- Request bodies have no size limit here: the handler enforces limits.max_body_mb with an error that SDKs understand.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream
from tornado.web import Application

from tornado_proxy.http_server.fd_limits import FdLimitedServer
from tornado_proxy.http_server.request_body import BodyTimeouts

#: Size limit of a request's start line and headers; near the providers' own limits.
_MAX_HEADER_BYTES = 64 * 1024

#: Larger than any limits.max_body_mb.  Tornado ends a request over its own limit with a 400 without a body.
_MAX_BODY_BYTES = 1 << 50

#: Seconds that a connection may stay open without complete request headers.  Same as Tornado's default.
_IDLE_TIMEOUT_S = 3600.0

#: Seconds between two sweeps over idle connections and stalled request bodies.
_SWEEP_INTERVAL_S = 30.0


class IdleConnections:
    """The connections that have not received the headers of their next request, each with the time it started waiting.

    Times are in seconds of the event loop's clock.
    """

    def __init__(self) -> None:
        self._idle_since: dict[object, float] = {}

    def add(self, connection: object, now: float) -> None:
        """Start the clock of `connection`, which is ready for its next request."""
        self._idle_since[connection] = now

    def discard(self, connection: object) -> None:
        """Stop the clock of `connection`: it has received request headers, or has closed."""
        self._idle_since.pop(connection, None)

    def list_expired(self, now: float) -> list[object]:
        """Return the connections that have been idle for longer than _IDLE_TIMEOUT_S."""
        return [connection for connection, since in self._idle_since.items() if now - since > _IDLE_TIMEOUT_S]


class ClientPortServer(FdLimitedServer):
    """Serves an application on the client port.  Create it on a running event loop.

    Args:
        application: Routes requests to handlers.  Its find_handler discards the request's connection from
            `idle_connections`.
        idle_connections: Connections that wait for a request; the server adds them and closes expired ones.
        body_timeouts: Requests whose body is incomplete; the server checks them in each sweep.
    """

    extra_fds_per_connection = 1  # the connection to a provider

    def initialize(  # type: ignore[override]  # Tornado's HTTPServer.initialize does the same
        self, application: Application, idle_connections: IdleConnections, body_timeouts: BodyTimeouts
    ) -> None:
        """Called by Tornado's constructor."""
        super().initialize(application, max_header_size=_MAX_HEADER_BYTES, max_body_size=_MAX_BODY_BYTES)
        # With a header_timeout, Tornado starts and cancels a timer for every request.
        self.conn_params.header_timeout = None
        self._idle_connections = idle_connections
        self._body_timeouts = body_timeouts
        self._asyncio_loop = asyncio.get_running_loop()
        self._sweep_timer = self._asyncio_loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado with each new connection."""
        # Nagle holds small SSE chunks for the client's delayed ACK.  Measured: p99 22-27 ms with it, 0.3 ms without.
        stream.set_nodelay(True)
        # HTTP1Connection calls set_nodelay(False) after each response; shadowing the method keeps Nagle off.
        stream.set_nodelay = _ignore_nodelay  # type: ignore[method-assign]
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado when a connection is ready for its next request."""
        self._idle_connections.add(server_conn, self._asyncio_loop.time())
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Called by Tornado when a connection has closed."""
        self._idle_connections.discard(server_conn)
        assert isinstance(server_conn, HTTP1ServerConnection)
        if server_conn.stream.error is not None:
            # The traceback's frames hold the stream and the stream holds the error: break the cycle to free it now.
            server_conn.stream.error.__traceback__ = None
        super().on_close(server_conn)

    def stop(self) -> None:
        """Stop accepting connections; open ones stay open."""
        self._sweep_timer.cancel()
        super().stop()

    def _sweep(self) -> None:
        now = self._asyncio_loop.time()
        for connection in self._idle_connections.list_expired(now):
            assert isinstance(connection, HTTP1ServerConnection)
            connection.stream.close()
        self._body_timeouts.check(now)
        self._sweep_timer = self._asyncio_loop.call_later(_SWEEP_INTERVAL_S, self._sweep)


def _ignore_nodelay(value: bool) -> None:  # noqa: FBT001  # Tornado's signature
    """Replace IOStream.set_nodelay with a function that does nothing."""
