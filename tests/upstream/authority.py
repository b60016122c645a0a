"""Certificates for providers on loopback, issued by a certificate authority of the test run."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@functools.cache
def default_authority() -> trustme.CA:
    """Return the authority that the tests trust; cached, since its key takes some milliseconds to make."""
    return trustme.CA()


def write_ca_file(folder: Path, authority: trustme.CA | None = None) -> str:
    """Write the authority's certificate as a PEM file for `providers.*.ca_file`; return its path."""
    path = folder / "ca.pem"
    (authority or default_authority()).cert_pem.write_to_path(path)
    return str(path)


def make_server_context(
    *,
    name: str = "127.0.0.1",
    authority: trustme.CA | None = None,
    expired: bool = False,
    alpn_protocols: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """Return a TLS context that presents a certificate for `name`, signed by `authority`."""
    not_after = datetime.now(UTC) - timedelta(days=1) if expired else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (authority or default_authority()).issue_cert(name, not_after=not_after).configure_cert(context)
    if alpn_protocols:
        context.set_alpn_protocols(list(alpn_protocols))
    return context
