"""The backend of the default ledger: one SQLite file, which several processes of one machine may share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tornado_proxy.ledger.database import Database, Read, StoreError
from tornado_proxy.ledger.dialect import SQLITE
from tornado_proxy.ledger.sqlite.database import FileIdentity, SqliteDatabase, check_identity, describe
from tornado_proxy.ledger.sqlite.read_connection import read_file
from tornado_proxy.ledger.writer.process_locks import ProcessLocks


class SqliteBackend:
    """Satisfies ledger.database.Backend for one file; each connection after the first one is to the same file."""

    dialect = SQLITE

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.name = str(path)
        self.files_path = path
        # An intent log is as durable as a commit without fsync, and costs the request no turn of the writer thread.
        # With fsync, the database is better: a flush takes milliseconds, which the event loop must not wait for.
        self.logs_intents = not fsync
        self._path = path
        self._fsync = fsync
        self._identity: FileIdentity | None = None

    def connect(self, *, create: bool, is_brief: bool = False) -> SqliteDatabase:
        """Return a connection; without `create`, raise StoreError if the file is missing, empty or another one."""
        try:
            if not create:
                check_identity(self._path, self._identity)
            db = SqliteDatabase(self._path, fsync=self._fsync, is_brief=is_brief)
            self._identity = db.identity
        except (sqlite3.Error, OSError) as error:
            raise StoreError(describe(self._path, error)) from error
        return db

    def make_liveness(self, db: Database, locks: ProcessLocks) -> ProcessLocks:
        """Return the file locks: all processes that write an SQLite file run on this machine."""
        return locks

    def read(
        self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False
    ) -> AbstractContextManager[Read]:
        """Return a read-only connection (see Backend.read)."""
        return read_file(self._path, is_over, snapshot=snapshot)
