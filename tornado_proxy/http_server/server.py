"""The HTTP server of the client port, on top of Tornado's.

It differs from Tornado's server in these ways, the first two for a measured reason (docs/performance.md):

- Nagle's algorithm stays off; Tornado turns it on again after each response.
- One periodic sweep closes idle connections and times out late heads and bodies, instead of a timer per request.
- Request bodies have no size limit here: the handler enforces limits.max_body_mb with an error that SDKs understand.
- When descriptors run short, the connections that have waited longest for a request are closed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from tornado.httpserver import _HTTPRequestContext
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream
from tornado.web import Application

from tornado_proxy.http_server.connection import ClientConnection, MakeRejection
from tornado_proxy.http_server.fd_limits import FdLimitedServer
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.tls_on_plain_port import watch_first_byte

#: Size limit of a request's start line and headers; near the providers' own limits.
_MAX_HEADER_BYTES = 64 * 1024

#: Larger than any limits.max_body_mb.  Tornado ends a request over its own limit with a 400 without a body.
_MAX_BODY_BYTES = 1 << 50

#: Seconds that a client has for a request head: from its first byte, or from the connection for the first request.
#: Same as nginx's client_header_timeout.  Without it, clients that send half a head hold all descriptors.
_HEAD_TIMEOUT_S = 60.0

#: Seconds that a connection may stay open between two requests.  Same as Tornado's default.
_IDLE_TIMEOUT_S = 3600.0

#: Seconds between two sweeps over idle connections and stalled request bodies.
_SWEEP_INTERVAL_S = 10.0

#: Seconds that a connection has waited before it is closed for lack of descriptors.  A client that has just connected
#: must have the time to send its request.
_MIN_CLOSE_IDLE_S = 5.0


class WaitingConnection(Protocol):
    """A connection that has not received the head of its next request."""

    @property
    def new(self) -> bool:
        """True if it has had no request yet."""

    @property
    def head_begun(self) -> bool:
        """True if a part of the next head has arrived."""


class IdleConnections:
    """The connections that have not received the headers of their next request, each with the time it started waiting.

    Times are in seconds of the event loop's clock.  Both dicts are ordered by time, oldest first.
    """

    def __init__(self) -> None:
        #: Connections between two requests.
        self._idle_since: dict[WaitingConnection, float] = {}
        #: New connections, and those that have begun a head: the next head must be complete soon.
        self._head_since: dict[WaitingConnection, float] = {}

    def add(self, connection: WaitingConnection, now: float) -> None:
        """Start the clock of `connection`, which is ready for its next request."""
        if connection.new:
            self._head_since[connection] = now
        else:
            self._idle_since[connection] = now

    def discard(self, connection: WaitingConnection) -> None:
        """Stop the clock of `connection`: it has received request headers, or has closed."""
        self._idle_since.pop(connection, None)
        self._head_since.pop(connection, None)

    def list_expired(self, now: float) -> list[WaitingConnection]:
        """Return the connections whose head is late, and those that have been idle for too long."""
        # A head's clock starts at the first sweep that sees a byte of it: a timeout is late by one interval at most.
        for connection in [connection for connection in self._idle_since if connection.head_begun]:
            del self._idle_since[connection]
            self._head_since[connection] = now
        return [
            *(connection for connection, since in self._head_since.items() if now - since > _HEAD_TIMEOUT_S),
            *(connection for connection, since in self._idle_since.items() if now - since > _IDLE_TIMEOUT_S),
        ]

    def find_oldest(self, now: float) -> WaitingConnection | None:
        """Return the connection that waits longest, one between two requests first; None if none waits for long."""
        for waiting in (self._idle_since, self._head_since):
            connection = next(iter(waiting), None)
            if connection is not None and now - waiting[connection] >= _MIN_CLOSE_IDLE_S:
                return connection
        return None


class ClientPortServer(FdLimitedServer):
    """Serves an application on the client port.  Create it on a running event loop.

    Args:
        application: Routes requests to handlers.  Its find_handler discards the request's connection from
            `idle_connections`.
        idle_connections: Connections that wait for a request; the server adds them and closes expired ones.
        body_timeouts: Requests whose body is incomplete; the server checks them in each sweep.
        make_rejection: Makes the response to a request that is not valid HTTP.
    """

    extra_fds_per_connection = 1  # the connection to a provider

    def initialize(  # type: ignore[override]  # Tornado's HTTPServer.initialize does the same
        self,
        application: Application,
        idle_connections: IdleConnections,
        body_timeouts: BodyTimeouts,
        make_rejection: MakeRejection,
    ) -> None:
        """Called by Tornado's constructor."""
        super().initialize(application, max_header_size=_MAX_HEADER_BYTES, max_body_size=_MAX_BODY_BYTES)
        # With a header_timeout, Tornado starts and cancels a timer for every request.
        self.conn_params.header_timeout = None
        self._idle_connections = idle_connections
        self._body_timeouts = body_timeouts
        self._make_rejection = make_rejection
        self._asyncio_loop = asyncio.get_running_loop()
        self._sweep_timer = self._asyncio_loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Called by Tornado with each new connection."""
        # Nagle holds small SSE chunks for the client's delayed ACK.  Measured: p99 22-27 ms with it, 0.3 ms without.
        stream.set_nodelay(True)
        # HTTP1Connection calls set_nodelay(False) after each response; shadowing the method keeps Nagle off.
        stream.set_nodelay = _ignore_nodelay  # type: ignore[method-assign]
        watch_first_byte(stream, address)
        context = _HTTPRequestContext(stream, address, self.protocol)
        connection = ClientConnection(stream, self.conn_params, context, self._make_rejection)
        self._connections.add(connection)
        connection.start_serving(self)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by a connection that is ready for its next request."""
        assert isinstance(server_conn, ClientConnection)
        self._idle_connections.add(server_conn, self._asyncio_loop.time())
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Called by a connection that has closed."""
        assert isinstance(server_conn, ClientConnection)
        self._idle_connections.discard(server_conn)
        if server_conn.stream.error is not None:
            # The traceback's frames hold the stream and the stream holds the error: break the cycle to free it now.
            server_conn.stream.error.__traceback__ = None
        super().on_close(server_conn)

    def close_idle_connection(self) -> bool:
        """Close the connection that has waited longest for a request head; return False if none waits for long."""
        connection = self._idle_connections.find_oldest(self._asyncio_loop.time())
        if connection is None:
            return False
        self._close(connection)
        return True

    def stop(self) -> None:
        """Stop accepting connections; open ones stay open."""
        self._sweep_timer.cancel()
        super().stop()

    def _sweep(self) -> None:
        now = self._asyncio_loop.time()
        for connection in self._idle_connections.list_expired(now):
            self._close(connection)
        self._body_timeouts.check(now)
        self._sweep_timer = self._asyncio_loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def _close(self, connection: WaitingConnection) -> None:
        # At once, not when the connection's task notices: the next connection may need the descriptor now.
        self._idle_connections.discard(connection)
        assert isinstance(connection, ClientConnection)
        connection.stream.close()


class AdminPortServer(ClientPortServer):
    """Serves an application on the admin port, whose requests open no connection to a provider."""

    extra_fds_per_connection = 0


def _ignore_nodelay(value: bool) -> None:  # noqa: FBT001  # Tornado's signature
    """Replace IOStream.set_nodelay with a function that does nothing."""
