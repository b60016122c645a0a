"""TLS of the client port."""

from __future__ import annotations

import contextlib
import socket
import ssl

from tornado_proxy.config.sections.listen_tls import TlsFiles


def make_tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context with the certificate in `files`, whose connections speak HTTP/1.1 over TLS 1.2 or later.

    Raises:
        OSError: a file cannot be read or is malformed, or the key is not that of the certificate (ssl.SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client of TLS 1.2 could ask for a new handshake again and again, and each costs the server most.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    files.load_into(context)
    return context


class TlsHandshake:
    """A connection whose TLS handshake has not ended.  It waits for its first request like any other new connection."""

    new = True
    head_begun = False

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def close(self) -> None:
        """End the handshake: the event loop sees the end of the connection and closes the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
