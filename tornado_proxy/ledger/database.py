"""The protocols of a database that holds a ledger: its backend, its connections, the liveness of other processes.

SQLite (sqlite/) and PostgreSQL (postgres/) implement them; backends.py chooses between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tornado_proxy.ledger.dialect import Dialect, Insert, Values
from tornado_proxy.ledger.writer.process_locks import ProcessLocks


class StoreError(Exception):
    """The database fails, whatever is written.  The message names it, the reason and the remedy."""


class ReadTimeout(Exception):
    """A query was cancelled because its time was over."""


#: Runs a query with `?` for a parameter, and yields its rows as they are fetched; none of them is held in memory.
Read = Callable[[str, Sequence[object]], Iterator[Any]]


class Database(Protocol):
    """A connection for writing, used by one thread.

    Every method may raise StoreError.  Any other exception is the fault of the values that were passed.
    """

    def list_tables(self) -> frozenset[str]:
        """Return the names of the tables that exist."""

    def list_columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns."""

    def list_triggers(self, table: str) -> frozenset[str]:
        """Return the names of a table's triggers."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run the statements of a `with` block in one transaction: commit at its end, roll back on an exception."""

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement.  In a transaction, its fault may be raised as late as at the end of the `with` block."""

    # Few statements for many rows: each one releases the interpreter's lock and waits for it again, some milliseconds
    # while the event loop is busy.  Row by row, a batch of a hundred took seconds.

    def insert(self, insert: Insert, rows: Sequence[Values]) -> None:
        """Insert rows in a transaction, which may raise their faults at the end of its `with` block."""

    def delete(self, table: str, column: str, values: Sequence[object]) -> None:
        """Delete the rows of a table whose column has one of the values, in a transaction as insert() does."""

    def run_script(self, sql: str) -> None:
        """Run several statements without parameters in a transaction of their own."""

    def fetch_rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query and return its rows."""

    def iterate_rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        """Run a query, outside a transaction, and yield its rows as they are fetched.

        Run no other statement before the last row.
        """

    def check(self) -> None:
        """Raise StoreError if a write would fail, as far as that is cheap to find out."""

    def close(self) -> None:
        """Close the connection."""


class Liveness(Protocol):
    """Tells which of the processes that write a database live.  A process is named by its writer id."""

    @property
    def grace_s(self) -> float:
        """Seconds for which a process that seems dead may go on: its connection can be broken although it lives."""

    def hold_opening_lock(self) -> AbstractContextManager[None]:
        """Hold the lock that one process at a time holds while it makes tables or searches for dead processes."""

    def register(self) -> None:
        """Mark this process as alive until it dies."""

    def is_dead(self, writer: str) -> bool:
        """Return True if a writer is another process and has died."""

    def hold_dead(self, writer: str) -> AbstractContextManager[bool]:
        """Return True in a `with` block if a writer is dead, which it stays until the end of the block."""

    def release(self) -> None:
        """Mark this process as dead before it ends; the next search finds its intents."""


class Backend(Protocol):
    """A database that holds a ledger.  Chosen once, from the configured address (backends.make_backend)."""

    @property
    def name(self) -> str:
        """The name of the database in messages: a path, or a URL without its password."""

    @property
    def dialect(self) -> Dialect:
        """The SQL of the database."""

    @property
    def files_path(self) -> Path:
        """The path that the names of lock files, journals and intent logs begin with, on a disk of this machine."""

    @property
    def logs_intents(self) -> bool:
        """True if intents are written to an intent log first, False if they are written to the database at once."""

    def connect(self, *, create: bool, is_brief: bool = False) -> Database:
        """Return a connection for writing.

        Args:
            create: permits to create the database if it does not exist.
            is_brief: the connection is for one task, and keeps little of the database in memory.

        Raises:
            StoreError: the connection fails.
        """

    def make_liveness(self, db: Database, locks: ProcessLocks) -> Liveness:
        """Return the liveness of the processes that write the database.

        Args:
            db: the connection of this process.
            locks: the lock files of this machine's processes.
        """

    def read(
        self, is_over: Callable[[], bool] | None = None, *, snapshot: bool = False
    ) -> AbstractContextManager[Read]:
        """Return a read-only connection.  A query is cancelled when `is_over()`, polled while it runs, returns True.

        With `snapshot` all queries see the database as it was at the first one.

        Raises, in the `with` block too:
            LedgerUnavailable: the ledger does not exist, cannot be read, or is another program's database.
            ReadTimeout: a query was cancelled.
        """
