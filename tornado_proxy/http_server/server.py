"""The HTTP server of the client port: Tornado's Application and handlers on connections of our own.

- One periodic sweep closes idle connections and times out late heads and bodies, instead of a timer per request.
- When descriptors run short, the connections that have waited longest for a request are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable

from tornado_proxy import tasks
from tornado_proxy.http_server.client_transport import ConnectionContext
from tornado_proxy.http_server.connection import ClientConnection, MakeRejection
from tornado_proxy.http_server.exchange import FindReceiver
from tornado_proxy.http_server.fd_limits import Acceptor, FdBudget
from tornado_proxy.http_server.idle_connections import IdleConnections, WaitingConnection
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.tls import TlsHandshake

#: Seconds between two sweeps over idle connections and stalled request bodies.
_SWEEP_INTERVAL_S = 10.0


class ClientPortServer:
    """Serves an application on the client port.  Create it on a running event loop.

    Args:
        application: Routes requests to their receivers.
        body_timeouts: Requests whose body is incomplete; the server checks them in each sweep.
        make_rejection: Makes the response to a request that is not valid HTTP.
        tls: Certificate and key; None to accept plain connections.
    """

    #: File descriptors that a connection needs in addition to its own: here the connection to a provider.
    extra_fds_per_connection = 1

    def __init__(
        self,
        application: FindReceiver,
        body_timeouts: BodyTimeouts,
        make_rejection: MakeRejection,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.application = application
        self.make_rejection = make_rejection
        self.idle_connections = IdleConnections()
        self._body_timeouts = body_timeouts
        #: For new connections; may be replaced while the server runs.
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._connections: set[WaitingConnection] = set()
        #: The tasks of connections that are accepted and not open yet.
        self._opening: set[asyncio.Task[None]] = set()
        #: The listening sockets, each with the function that stops accepting.
        self._listening: list[tuple[socket.socket, Callable[[], None]]] = []
        self._sweep_timer = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on `sockets`."""
        budget = FdBudget(1 + self.extra_fds_per_connection)
        for listening in sockets:
            acceptor = Acceptor(listening, self._on_accepted, budget, self.close_idle_connection)
            self._listening.append((listening, acceptor.start()))

    def close_idle_connection(self) -> bool:
        """Close the connection that has waited longest for a request head; return False if none waits for long."""
        connection = self.idle_connections.find_oldest(self._loop.time())
        if connection is None:
            return False
        self._close(connection)
        return True

    def stop(self) -> None:
        """Stop accepting connections; open ones stay open."""
        self._sweep_timer.cancel()
        for listening, stop in self._listening:
            stop()
            listening.close()
        self._listening.clear()

    async def close_all_connections(self) -> None:
        """Close all connections, and wait until they are closed."""
        while self._connections or self._opening:
            for connection in list(self._connections):
                connection.close()
            await asyncio.sleep(0)

    # Called by connections.

    def on_open(self, connection: WaitingConnection) -> None:
        """Called when a connection has opened."""
        self._connections.add(connection)

    def on_waiting(self, connection: WaitingConnection) -> None:
        """Called when a connection is ready for its next request."""
        self.idle_connections.add(connection, self._loop.time())

    def on_ending(self, connection: WaitingConnection) -> None:
        """Called when a connection will take no more requests."""
        self.idle_connections.discard(connection)

    def on_close(self, connection: WaitingConnection) -> None:
        """Called when a connection has closed."""
        self.idle_connections.discard(connection)
        self._connections.discard(connection)

    def _on_accepted(self, connection: socket.socket, address: object) -> None:
        task = tasks.spawn(self._open(connection, address), "connection")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket, address: object) -> None:
        """Make the protocol of a new connection; with TLS after the handshake."""
        connection.settimeout(0)
        # Nagle holds small SSE chunks for the client's delayed ACK.  Measured: p99 22-27 ms with it, 0.3 ms without.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        remote_ip = str(address[0]) if isinstance(address, tuple) else "0.0.0.0"  # noqa: S104  # as Tornado's
        tls = self.tls
        protocol = ClientConnection(self, connection, ConnectionContext(remote_ip, "https" if tls else "http"))
        handshake = TlsHandshake(connection) if tls else None
        if handshake is not None:
            self.on_open(handshake)
            self.on_waiting(handshake)
        with contextlib.suppress(OSError):  # the client has left already, or its handshake has failed
            await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
        if handshake is not None:
            self.on_close(handshake)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in self.idle_connections.list_expired(now):
            self._close(connection)
        self._body_timeouts.check(now)
        self._sweep_timer = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)

    def _close(self, connection: WaitingConnection) -> None:
        self.idle_connections.discard(connection)
        connection.close()


class AdminPortServer(ClientPortServer):
    """Serves an application on the admin port, whose requests open no connection to a provider."""

    extra_fds_per_connection = 0
