"""Binds the address of a server."""

from __future__ import annotations

from tornado.netutil import bind_sockets

from tornado_proxy.domain.errors import ListenError
from tornado_proxy.http_server.server import ClientPortServer

#: Length of the kernel's queue of unaccepted connections, which net.core.somaxconn limits.  Thousands of clients may
#: connect at once after a restart, and the SYN of a client that finds the queue full is sent again only after a second.
_BACKLOG = 4096


def listen(server: ClientPortServer, host: str, port: int, *, reuse_port: bool = False) -> int:
    """Let `server` accept connections; return the port, which the kernel chooses if `port` is 0.

    Raises:
        ListenError: the address cannot be bound.
    """
    try:
        sockets = bind_sockets(port, host, backlog=_BACKLOG, reuse_port=reuse_port)
    except OSError as error:
        # The message of bind_sockets does not name the address.
        raise ListenError(f"{host}:{port}: {error.strerror or error}") from error
    server.add_sockets(sockets)
    bound: int = sockets[0].getsockname()[1]
    return bound
