"""Where a ledger is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.identity import Secret


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A PostgreSQL database.  `url` is a libpq URI without a password, and may be shown.

    `journal` is the folder on this machine where records wait while the server cannot be reached.
    """

    url: str
    password: Secret | None
    journal: Path


#: A path is that of an SQLite file.
LedgerAddress = Path | PostgresAddress
