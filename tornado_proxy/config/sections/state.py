"""Reads the section `state`: the key ring of the secrets that are set while the server runs."""

from __future__ import annotations

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.domain.config.document import Document
from tornado_proxy.domain.key_ring import KeyRing, parse_key_ring

_PATH = ("state", "keys")


def read_key_ring(document: Document, findings: Findings) -> KeyRing | None:
    """Return the key ring of a checked document; None if it names none, or if it has a fault."""
    secret = read_secrets(document, ("state",), findings).get(_PATH)
    if secret is None:
        return None
    try:
        return parse_key_ring(secret.reveal())
    except ValueError as error:
        findings.add(document, _PATH, str(error))
        return None
