"""The section `ledger`: where it is, with its password if it has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tornado_proxy.config.findings import Findings
from tornado_proxy.config.secrets import read_secrets
from tornado_proxy.domain.document import Document
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.ledger_address import LedgerAddress, PostgresAddress

DEFAULT_URL = "sqlite:///ledger.db"
_DEFAULT_JOURNAL = "ledger-journal"

_SQLITE = "sqlite:///"

#: What a PostgreSQL ledger takes beside its URL, and an SQLite one cannot use.
_OF_POSTGRES = ("password", "journal")


def read_ledger_password(document: Document, findings: Findings) -> Secret | None:
    """The password that a checked document names, if it names one."""
    content = document.content
    section = content.get("ledger") if isinstance(content, dict) else None
    if not isinstance(section, dict) or findings.has_fault(document, ("ledger",)):
        return None
    if str(section.get("url", DEFAULT_URL)).startswith(_SQLITE):
        for key in _OF_POSTGRES:
            if key in section:
                findings.add(document, ("ledger", key), "is for a PostgreSQL ledger; an SQLite file has none")
        return None
    return read_secrets(document, ("ledger",), findings).get(("ledger", "password"))


def ledger_address(section: Mapping[str, object], base: Path, password: Secret | None) -> LedgerAddress:
    """Where a checked section says that the ledger is; relative paths start at the folder `base`."""
    url = str(section.get("url", DEFAULT_URL))
    if url.startswith(_SQLITE):
        return base / url.removeprefix(_SQLITE)
    return PostgresAddress(url, password, base / str(section.get("journal", _DEFAULT_JOURNAL)))
