"""The ledger on a PostgreSQL server, which several machines may share."""

from __future__ import annotations

from tornado_proxy.domain.ledger_address import PostgresAddress
from tornado_proxy.ledger.group_commit import USUAL, GroupCommitLedger, Patience
from tornado_proxy.ledger.postgres_database import PostgresDatabase
from tornado_proxy.ledger.postgres_writers import PostgresWriters
from tornado_proxy.ledger.store import Opening
from tornado_proxy.ledger.usage_reads import UsageReads
from tornado_proxy.ledger.writers import Writers

#: What the names of lock files and journals in the journal folder begin with.
_NAME = "ledger"


class PostgresLedger(GroupCommitLedger):
    """A Ledger in a PostgreSQL database.  `fsync` commits synchronously whatever the server's own setting is."""

    def __init__(self, address: PostgresAddress, *, fsync: bool = False, patience: Patience = USUAL) -> None:
        files = Writers(address.journal / _NAME)
        opening = Opening(
            name=address.url,
            connect=lambda create: PostgresDatabase(address, fsync=fsync),
            files=files,
            liveness=lambda db: PostgresWriters(db, files.own),
        )
        # Intents go to the server at once: this machine's disk may die with the process.
        super().__init__(opening, UsageReads(address), logs_intents=False, patience=patience)
