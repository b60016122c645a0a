"""TCP connections to providers, and the TLS contexts of WebSockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import lru_cache

import aiohappyeyeballs
import certifi

from tornado_proxy.upstream.address_guard import REFUSAL, AddressRefused, is_public

#: Seconds until the next address of a name is tried beside the one before (RFC 8305 section 8).
_NEXT_ADDRESS_DELAY_S = 0.25


async def open_socket(host: str, port: int, *, public_only: bool) -> socket.socket:
    """Return a socket that is connected to `host`; to a public address of it if `public_only`.

    Raises:
        AddressRefused: it has no public address.
        OSError: the lookup fails, or no address accepts the connection.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one that is too long
        raise OSError(f"invalid host name {host!r}") from error
    addresses = [info for info in found if not public_only or is_public(str(info[4][0]))]
    if not addresses:
        raise AddressRefused(REFUSAL)
    try:
        connection = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_DELAY_S, interleave=1, loop=loop
        )
    except OSError as error:
        raise error.with_traceback(None)  # noqa: B904  # the library's frames have the error: break the cycle
    except RuntimeError as error:  # uvloop's for some errors of a socket
        raise OSError(str(error)) from error
    # Nagle holds small messages for the peer's delayed ACK.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def find_tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in `ca_file`, those of certifi if it is None.

    Raises:
        OSError: the file cannot be read, or has no certificates (ssl.SSLError).
    """
    path = ca_file or certifi.where()
    state = os.stat(path)
    return _make_tls_context(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=8)
def _make_tls_context(path: str, version: tuple[int, int, int]) -> ssl.SSLContext:
    """Return the context of one version of a file: reading certifi's takes 16 ms and 0.65 MB."""
    return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=path)
