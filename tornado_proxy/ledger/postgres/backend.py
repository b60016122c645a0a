"""The backend of a ledger on a PostgreSQL server, which several machines may share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.ledger.database import Database, Read
from tornado_proxy.ledger.dialect import POSTGRES
from tornado_proxy.ledger.postgres.database import PostgresDatabase
from tornado_proxy.ledger.postgres.process_locks import PostgresProcessLocks
from tornado_proxy.ledger.postgres.read_connection import read_server
from tornado_proxy.ledger.writer.process_locks import ProcessLocks

#: The names of lock files and journals in the journal folder begin with this.
_FILE_NAME = "ledger"


class PostgresBackend:
    """Satisfies ledger.database.Backend for one database of a PostgreSQL server."""

    dialect = POSTGRES
    #: Intents are written to the server at once: this machine's disk may be lost with the process.
    logs_intents = False

    def __init__(self, address: PostgresAddress, *, fsync: bool) -> None:
        self.name = address.url
        self.files_path = address.journal / _FILE_NAME
        self._address = address
        self._fsync = fsync

    def connect(self, *, create: bool, is_brief: bool = False) -> PostgresDatabase:
        """Return a connection, which makes the schema if it does not exist; the parameters make no difference."""
        return PostgresDatabase(self._address, fsync=self._fsync)

    def make_liveness(self, db: Database, locks: ProcessLocks) -> PostgresProcessLocks:
        """Return the locks on the server: file locks of this machine say nothing about the other machines."""
        return PostgresProcessLocks(db, locks.writer_id)

    def read(
        self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False
    ) -> AbstractContextManager[Read]:
        """Return a read-only connection (see Backend.read)."""
        return read_server(self._address, is_over, snapshot=snapshot)
