"""Certificates of a provider on loopback, by an authority that lives as long as the tests."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@functools.cache
def authority() -> trustme.CA:
    """The one that `ca_file` names; it costs some milliseconds to make."""
    return trustme.CA()


def write_ca_file(folder: Path, of: trustme.CA | None = None) -> str:
    """Its certificate as a PEM file, for `providers.*.ca_file`."""
    path = folder / "ca.pem"
    (of or authority()).cert_pem.write_to_path(path)
    return str(path)


def make_server_context(
    *, name: str = "127.0.0.1", by: trustme.CA | None = None, expired: bool = False, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """What a provider presents: a certificate for `name`, signed by `by`."""
    not_after = datetime.now(UTC) - timedelta(days=1) if expired else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (by or authority()).issue_cert(name, not_after=not_after).configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
