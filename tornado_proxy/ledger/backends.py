"""The ledger that a configuration names."""

from __future__ import annotations

from pathlib import Path

from tornado_proxy.domain.ledger_address import LedgerAddress
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.read_connection import needs_driver
from tornado_proxy.ledger.sqlite.ledger import SqliteLedger


def make_ledger(address: LedgerAddress, *, fsync: bool) -> Ledger:
    """A ledger that is not open yet.

    Raises:
        LedgerUnavailable: the driver of its database is not installed.
    """
    if isinstance(address, Path):
        return SqliteLedger(address, fsync=fsync)
    with needs_driver():
        from tornado_proxy.ledger.postgres.ledger import PostgresLedger
    return PostgresLedger(address, fsync=fsync)
