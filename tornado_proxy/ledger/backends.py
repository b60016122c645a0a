"""Makes the ledger that a configuration names."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.domain.config.ledger_address import LedgerAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import Backend
from tornado_proxy.ledger.sqlite.backend import SqliteBackend
from tornado_proxy.ledger.writer.group_commit import DEFAULT_TIMEOUTS, GroupCommitLedger, LedgerTimeouts


def make_backend(address: LedgerAddress, *, fsync: bool = False) -> Backend:
    """Return the backend of an address, without a connection.

    Args:
        address: the path of an SQLite file, or a PostgreSQL database.
        fsync: True if each commit waits until the disk has it, so that it survives loss of power.

    Raises:
        LedgerUnavailable: the driver of the database is not installed.
    """
    if isinstance(address, Path):
        return SqliteBackend(address, fsync=fsync)
    try:
        # psycopg is an optional dependency: import it for a PostgreSQL address only.
        from tornado_proxy.ledger.postgres.backend import PostgresBackend
    except ImportError as error:
        raise LedgerUnavailable(
            "a PostgreSQL ledger needs the driver psycopg: pip install 'tornado-proxy[postgresql]'"
        ) from error
    return PostgresBackend(address, fsync=fsync)


def make_ledger(
    address: LedgerAddress, *, fsync: bool = False, timeouts: LedgerTimeouts = DEFAULT_TIMEOUTS
) -> GroupCommitLedger:
    """Return the ledger of an address; call its open() next.

    Raises:
        LedgerUnavailable: the driver of the database is not installed.
    """
    return GroupCommitLedger(make_backend(address, fsync=fsync), timeouts=timeouts)
