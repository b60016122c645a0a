"""The section `listen.tls`: the certificate and the key of the client port."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.config.files import find_read_error, resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.domain.config.document import Document, read_section

_PATH = ("listen", "tls")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files.

    Attributes:
        certificate: the certificate, followed by those of the authorities between it and a trusted one.
        key: its private key.
    """

    certificate: Path
    key: Path

    def load_into(self, context: ssl.SSLContext) -> None:
        """Use the files for new connections of `context`.

        Raises:
            OSError: a file cannot be read or is malformed, or the key is not that of the certificate (ssl.SSLError).
        """
        # An empty password: with none, OpenSSL would ask for it on the terminal and wait.
        context.load_cert_chain(self.certificate, self.key, password="")


def read_tls_files(listen: Mapping[str, object], base: Path) -> TlsFiles | None:
    """Return the files that a checked section `listen` names; relative paths start at the folder `base`."""
    section = read_section(listen, "tls")
    return TlsFiles(base / str(section["certificate"]), base / str(section["key"])) if section else None


def check_tls(document: Document, content: Mapping[str, object], findings: Findings) -> None:
    """Add faults of the files: they must be readable and belong together."""
    listen = read_section(content, "listen")
    if findings.has_fault(document, _PATH) or not read_section(listen, "tls"):
        return
    files = read_tls_files(listen, Path(document.file).parent)
    assert files is not None, "the section is not empty"
    for name, path in (("certificate", files.certificate), ("key", files.key)):
        problem = find_read_error(path)
        if problem is not None:
            findings.add(document, (*_PATH, name), f"{resolve_folder(path)} {problem}")
    if findings.has_fault(document, _PATH):
        return
    try:
        files.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or "unknown error"
        rule = (
            f"must be a PEM certificate and its private key without a password: {str(reason).replace('_', ' ').lower()}"
        )
        findings.add(document, _PATH, rule)
