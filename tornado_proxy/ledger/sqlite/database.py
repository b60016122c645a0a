"""The connection to an SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.dialect import SQLITE, Dialect

#: Milliseconds that SQLite waits for another connection's transaction.  The proxy's own take some milliseconds.
_BUSY_MS = 2000

#: KiB of pages in memory.  Request ids are random, so that each record touches pages all over the indexes.
_CACHE_KIB = 16 * 1024

#: Statements that stay prepared: four sizes of each of the five that write, and the queries.
_PREPARED = 64


#: Device and inode of a file.
Identity = tuple[int, int]


class SqliteFile:
    """A ledger file: connects to it, time and again to the same one."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self._identity: Identity | None = None

    def connect(self, create: bool) -> SqliteDatabase:  # noqa: FBT001  # as ledger.store.Opening has it
        """A connection; without `create` to a file that is there.

        Raises:
            StoreError: it cannot be opened, or another file stands in its place.
        """
        try:
            if not create:
                _check_identity(self._path, self._identity)
            db = SqliteDatabase(self._path, fsync=self._fsync)
            self._identity = db.identity
        except (sqlite3.Error, OSError) as error:
            raise StoreError(describe(self._path, error)) from error
        return db


class SqliteDatabase:
    """One connection to a ledger file.  Satisfies ledger.database.Database."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        """Connect.  Raises sqlite3.Error or OSError."""
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=_PREPARED)
        try:
            self._set_up(fsync=fsync)
            self.identity = _identity(path)
        except BaseException:
            self._db.close()
            raise

    def _set_up(self, *, fsync: bool) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL survives the death of the process; FULL flushes each commit, and survives loss of power.
        self._db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return SQLITE

    def tables(self) -> frozenset[str]:
        """The tables of the file."""
        return frozenset(str(name) for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"))

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table."""
        return frozenset(str(name) for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", (table,)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that holds the file's write lock from its start."""
        with self._telling():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        with self._telling():
            self._db.execute(sql, values)

    def script(self, sql: str) -> None:
        """Run statements in a transaction of their own."""
        with self._telling():
            try:
                self._db.executescript(f"BEGIN IMMEDIATE; {sql} COMMIT;")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query."""
        with self._telling():
            return self._db.execute(sql, values).fetchall()

    def check(self) -> None:
        """See that the file is still the one that was opened, and that its write lock can be had."""
        with self._telling():
            _check_identity(self._path, self.identity)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        with self._telling():
            self._db.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, MemoryError) as error:
            if not _is_store_fault(error):
                raise
            raise StoreError(describe(self._path, error)) from error


def describe(path: Path, error: Exception) -> str:
    """What is wrong with the file, and what an operator can do."""
    text = str(error).lower()
    if "disk is full" in text or "disk i/o" in text or "no space" in text or "file too large" in text:
        return f"{path}: the disk is full or broken ({error}); free space on it"
    if isinstance(error, FileNotFoundError):
        return f"{path}: the file is gone; put it back, or restart the server to begin a new one"
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return f"{path}: cannot be opened for writing ({error}); check the owner and mode of the file and its folder"
    if "locked" in text or "busy" in text:
        return f"{path}: another program holds the file ({error}); end what keeps it locked"
    if "not a database" in text or "malformed" in text:
        return f"{path}: is damaged or no ledger ({error}); restore a backup, or move it away to begin a new one"
    return f"{path}: {error}"


def _check_identity(path: Path, opened: Identity | None) -> None:
    """Raise where another file stands in the place of the one that was opened.

    That one would be written on, and be gone with the process; and what SQLite's log of changes holds for it would
    damage the other.
    """
    if opened is not None and _identity(path) != opened:
        raise StoreError(
            f"{path}: was replaced by another file while it was open; put the first one back, or stop the server and "
            f"remove {path.name}-wal and {path.name}-shm before it starts with the other"
        )


def _identity(path: Path) -> Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_store_fault(error: Exception) -> bool:
    """Whether any value would have failed.  A bare DatabaseError is a damaged file; the others tell of values."""
    if isinstance(error, sqlite3.OperationalError | sqlite3.InternalError | OSError | MemoryError):
        return True
    return type(error) is sqlite3.DatabaseError
