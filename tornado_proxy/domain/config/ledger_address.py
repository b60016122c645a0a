"""The address of a ledger: an SQLite file or a PostgreSQL database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tornado_proxy.domain.identity import Secret


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """The address of a PostgreSQL database.

    Attributes:
        url: A libpq connection URI without a password, so that it can be logged.
        password: The password, or None if the server asks for none.
        journal: A local folder that holds records while the server is unreachable.
    """

    url: str
    password: Secret | None
    journal: Path


#: A path is the path of an SQLite file.
LedgerAddress = Path | PostgresAddress
