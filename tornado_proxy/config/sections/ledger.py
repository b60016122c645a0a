"""The section `ledger`: the address of the ledger and its password."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tornado_proxy.config.files import resolve_folder
from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.domain.config.document import Document, read_section
from tornado_proxy.domain.config.ledger_address import LedgerAddress, PostgresAddress
from tornado_proxy.domain.identity import Secret

DEFAULT_URL = "sqlite:///ledger.db"
_DEFAULT_JOURNAL = "ledger-journal"

_SQLITE_PREFIX = "sqlite:///"

#: Settings of a PostgreSQL ledger only.
_POSTGRES_KEYS = ("password", "journal")


def read_ledger_password(document: Document, findings: Findings) -> Secret | None:
    """Return the password that a checked document names, or None if it names none."""
    section = read_section(document.content, "ledger")
    if findings.has_fault(document, ("ledger",)):
        return None
    if str(section.get("url", DEFAULT_URL)).startswith(_SQLITE_PREFIX):
        # Ignored settings would hide a mistake: the operator may believe that the ledger is in PostgreSQL.
        for key in _POSTGRES_KEYS:
            if key in section:
                findings.add(document, ("ledger", key), "applies to PostgreSQL only; remove it for an SQLite ledger")
        _check_file(document, section, findings)
        return None
    return read_secrets(document, ("ledger",), findings).get(("ledger", "password"))


def _check_file(document: Document, section: Mapping[str, object], findings: Findings) -> None:
    """Add a fault if the path of an SQLite ledger is that of a folder."""
    path = Path(document.file).parent / str(section.get("url", DEFAULT_URL)).removeprefix(_SQLITE_PREFIX)
    if path.is_dir():
        findings.add(
            document, ("ledger", "url"), f"{resolve_folder(path)} is a folder; name a file in it, such as ledger.db"
        )


def ledger_address(section: Mapping[str, object], base: Path, password: Secret | None) -> LedgerAddress:
    """Return the address in a checked section; relative paths start at the folder `base`."""
    url = str(section.get("url", DEFAULT_URL))
    if url.startswith(_SQLITE_PREFIX):
        return resolve_folder(base / url.removeprefix(_SQLITE_PREFIX))
    return PostgresAddress(url, password, base / str(section.get("journal", _DEFAULT_JOURNAL)))
