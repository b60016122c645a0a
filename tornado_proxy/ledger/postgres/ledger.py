"""The ledger on a PostgreSQL server, which several machines may share."""

from __future__ import annotations

from tornado_proxy.domain.ledger_address import PostgresAddress
from tornado_proxy.ledger.postgres.database import PostgresDatabase
from tornado_proxy.ledger.postgres.process_locks import PostgresProcessLocks
from tornado_proxy.ledger.reports.usage_reader_thread import UsageReaderThread
from tornado_proxy.ledger.writer.group_commit import DEFAULT_TIMEOUTS, GroupCommitLedger, LedgerTimeouts
from tornado_proxy.ledger.writer.process_locks import ProcessLocks
from tornado_proxy.ledger.writer.store import Opening

#: What the names of lock files and journals in the journal folder begin with.
_NAME = "ledger"


class PostgresLedger(GroupCommitLedger):
    """A Ledger in a PostgreSQL database.  `fsync` commits synchronously whatever the server's own setting is."""

    def __init__(
        self, address: PostgresAddress, *, fsync: bool = False, patience: LedgerTimeouts = DEFAULT_TIMEOUTS
    ) -> None:
        files = ProcessLocks(address.journal / _NAME)
        opening = Opening(
            name=address.url,
            connect=lambda create: PostgresDatabase(address, fsync=fsync),
            files=files,
            liveness=lambda db: PostgresProcessLocks(db, files.own),
        )
        # OpenIntents go to the server at once: this machine's disk may die with the process.
        super().__init__(opening, UsageReaderThread(address), logs_intents=False, patience=patience)
