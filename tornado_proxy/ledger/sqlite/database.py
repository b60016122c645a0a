"""The connection that writes an SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from pathlib import Path

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.dialect import BoundStatement, Insert, Values
from tornado_proxy.ledger.file_modes import create_private

#: Milliseconds that SQLite waits for another connection's transaction.  A transaction of the proxy takes a few.
_BUSY_TIMEOUT_MS = 2000

#: KiB of pages in memory: a record touches those of several indexes.
_CACHE_KIB = 16 * 1024

#: The same of a connection that reads each page about once.
_BRIEF_CACHE_KIB = 2 * 1024

#: Bytes of the -wal file that are kept when its content is in the database and no reader is left.  SQLite moves the
#: content at 1,000 pages (4 MiB), so the file does not shrink and grow all the time.
_MAX_KEPT_WAL_BYTES = 4 * 1024 * 1024

#: Statements that stay prepared: nine sizes of each of the five that write, with few sets of columns, and the queries.
_MAX_PREPARED_STATEMENTS = 128

#: Rows of one statement, largest first.  Few sizes, so that all statements stay prepared, and few statements for any
#: number of rows: each hands the interpreter's lock over several times.  256 rows of the records' 42 columns stay below
#: SQLite's limit of 32766 parameters.  https://sqlite.org/limits.html
_RUN_SIZES = (256, 128, 64, 32, 16, 8, 4, 2, 1)

# The sqlite3 module binds None as any object of an unknown class: it looks for adapters in three places, which takes a
# microsecond, and a record has some twenty of them.  An adapter of its own is found at once; this one returns None.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # returns None

#: The device and the inode of a file.
FileIdentity = tuple[int, int]


class SqliteConnection:
    """The statements of a connection, whose faults name the file `name`."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self._db = db
        self._name = name

    def list_tables(self) -> frozenset[str]:
        """Return the names of the file's tables."""
        return frozenset(
            str(name) for (name,) in self.fetch_rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        )

    def list_columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns."""
        return frozenset(str(name) for (name,) in self.fetch_rows("SELECT name FROM pragma_table_info(?)", (table,)))

    def list_triggers(self, table: str) -> frozenset[str]:
        """Return the names of a table's triggers."""
        rows = self.fetch_rows("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,))
        return frozenset(str(name) for (name,) in rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a transaction that holds the file's write lock from its start."""
        with self._raising_store_errors():
            # A deferred transaction takes the write lock at its first write, and then fails at once, without the busy
            # timeout, if another connection has written since it began to read.
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
        with self._raising_store_errors():
            self._db.execute(sql, values)

    # The transaction turns the faults of both into StoreErrors.

    def insert(self, insert: Insert, rows: Sequence[Values]) -> None:
        """Insert rows in a transaction."""
        for sql, values in make_inserts(insert, rows):
            self._db.execute(sql, values)

    def delete(self, table: str, column: str, values: Sequence[object]) -> None:
        """Delete the rows whose column has one of the values, in a transaction."""
        for sql, run in make_deletes(table, column, values):
            self._db.execute(sql, run)

    def run_script(self, sql: str) -> None:
        """Run several statements in a transaction of their own."""
        with self._raising_store_errors():
            try:
                self._db.executescript(f"BEGIN IMMEDIATE; {sql} COMMIT;")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def fetch_rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query and return its rows."""
        with self._raising_store_errors():
            return self._db.execute(sql, values).fetchall()

    def iterate_rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        """Run a query and yield its rows; none of them is held in memory."""
        with self._raising_store_errors():
            yield from self._db.execute(sql, values)

    def close(self) -> None:
        """Close the connection."""
        with self._raising_store_errors():
            self._db.close()

    @contextlib.contextmanager
    def _raising_store_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, MemoryError) as error:
            if not _is_store_error(error):
                raise
            raise StoreError(describe(self._name, error)) from error


class SqliteDatabase(SqliteConnection):
    """A connection to a ledger file.  Satisfies ledger.database.Database."""

    def __init__(self, path: Path, *, fsync: bool, is_brief: bool = False) -> None:
        """Connect; raise sqlite3.Error or OSError if that fails."""
        self._path = path
        # SQLite would create the file with mode 0644; it gives the file's mode to the files beside it.  O_EXCL: closing
        # a file that exists would free the locks of this process's other connections, and another process would delete
        # the -wal file that they use.  https://sqlite.org/howtocorrupt.html, "posix advisory locks"
        with contextlib.suppress(OSError):  # connect() describes the fault
            os.close(create_private(path, os.O_RDWR | os.O_EXCL))
        super().__init__(connect(path), str(path))
        try:
            self._set_up(fsync=fsync, cache_kib=_BRIEF_CACHE_KIB if is_brief else _CACHE_KIB)
            self.identity = _identify(path.stat())
        except BaseException:
            self._db.close()
            raise

    def _set_up(self, *, fsync: bool, cache_kib: int) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        # WAL lets one connection write while others read.
        self._db.execute("PRAGMA journal_mode = WAL")
        # A reader that takes long makes the -wal file grow; SQLite reuses the file then, but does not shrink it without
        # this limit.  https://sqlite.org/pragma.html#pragma_journal_size_limit
        self._db.execute(f"PRAGMA journal_size_limit = {_MAX_KEPT_WAL_BYTES}")
        # In WAL mode, NORMAL survives the death of the process; FULL flushes each commit and survives loss of power.
        # https://sqlite.org/pragma.html#pragma_synchronous
        self._db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        self._db.execute(f"PRAGMA cache_size = -{cache_kib}")

    def check(self) -> None:
        """Raise StoreError if the file has been replaced, or if its write lock cannot be taken."""
        with self._raising_store_errors():
            check_identity(self._path, self.identity)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("ROLLBACK")


def connect(path: Path | str) -> sqlite3.Connection:
    """Return a connection to a file; raise sqlite3.Error if that fails."""
    # isolation_level=None: SqliteConnection begins transactions, not the sqlite3 module.  The connection is made in a
    # thread of the event loop's pool and used by the writer thread, hence check_same_thread=False.
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=_MAX_PREPARED_STATEMENTS
    )


def make_inserts(insert: Insert, rows: Sequence[Values]) -> list[BoundStatement]:
    """Return the statements that insert rows.

    Columns that are None in all rows are left out: half of a record's are, and to bind None takes as long as text.
    """
    used = tuple([column.count(None) < len(column) for column in zip(*rows, strict=True)])
    return [
        (_insert_values(insert, used, end - start), [value for row in rows[start:end] for value in compress(row, used)])
        for start, end in _split(len(rows))
    ]


def make_deletes(table: str, column: str, values: Sequence[object]) -> list[BoundStatement]:
    """Return the statements that delete the rows of a table whose column has one of the values."""
    return [(_delete_values(table, column, end - start), values[start:end]) for start, end in _split(len(values))]


def _split(length: int) -> list[tuple[int, int]]:
    """Return the starts and ends of runs of _RUN_SIZES."""
    runs: list[tuple[int, int]] = []
    start = 0
    for size in _RUN_SIZES:
        while length - start >= size:
            runs.append((start, start + size))
            start += size
    return runs


@lru_cache(_MAX_PREPARED_STATEMENTS)
def _insert_values(insert: Insert, used: tuple[bool, ...], rows: int) -> str:
    """Return SQL that inserts a number of rows; `used` is True for each column of `insert` that the rows have."""
    columns = tuple(compress(insert.columns, used))
    group = f"({', '.join('?' * len(columns))})"
    start = replace(insert, columns=columns).start
    return f"{start} VALUES {', '.join([group] * rows)} {insert.end}"


@lru_cache(_MAX_PREPARED_STATEMENTS)
def _delete_values(table: str, column: str, rows: int) -> str:
    return f"DELETE FROM {table} WHERE {column} IN ({', '.join('?' * rows)})"  # noqa: S608  # names of ours


def describe(path: Path | str, error: Exception) -> str:
    """Return the fault of a ledger file and its remedy, in one line for an operator."""
    # sqlite3 has one class for most faults; the text tells them apart.
    text = str(error).lower()
    if "disk is full" in text or "disk i/o" in text or "no space" in text or "file too large" in text:
        return f"{path}: the disk is full or broken ({error}); free space on it"
    if isinstance(error, FileNotFoundError):
        return f"{path}: the file is missing; put it back, or restart the server to begin a new one"
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return f"{path}: cannot be opened for writing ({error}); check the owner and mode of the file and its folder"
    if "locked" in text or "busy" in text:
        return f"{path}: another program holds the file ({error}); end what keeps it locked"
    if "not a database" in text or "malformed" in text:
        return f"{path}: is damaged or no ledger ({error}); restore a backup, or move it away to begin a new one"
    return f"{path}: {error}"


def check_identity(path: Path, opened: FileIdentity | None) -> None:
    """Raise StoreError if the file at `path` is empty, or not the one that was opened; `opened` is None if none was.

    The connection writes to a replaced file still, which is deleted with the process, and the -wal file of the first
    one would damage the second.  https://sqlite.org/howtocorrupt.html

    SQLite takes an empty file, as a copy that is put into its place is at first, for a new database: tables that are
    made there would be mixed with those of the copy.
    """
    status = path.stat()
    if opened is not None and _identify(status) != opened:
        raise StoreError(
            f"{path}: was replaced by another file while it was open; put the first one back, or stop the server and "
            f"remove {path.name}-wal and {path.name}-shm before it starts with the other"
        )
    if not status.st_size:
        raise StoreError(f"{path}: is empty; restore a backup, or restart the server to begin a new one")


def _identify(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino


def _is_store_error(error: Exception) -> bool:
    """Return True if every write would fail; False if the fault is in the values of this one.

    DatabaseError itself means a damaged file; its subclasses DataError and IntegrityError are about values.
    """
    if isinstance(error, sqlite3.OperationalError | sqlite3.InternalError | OSError | MemoryError):
        return True
    return type(error) is sqlite3.DatabaseError
