"""A temporary SQLite file, so that memory is bounded however many rows there are."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence

from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.sqlite.database import SqliteConnection, connect, describe

#: SQLite makes a file for this name and deletes it as soon as it has opened it, so that a process that is killed leaves
#: nothing behind.  The file is in SQLITE_TMPDIR, TMPDIR, /var/tmp or /tmp, the first of them that can be written.
#: https://sqlite.org/inmemorydb.html#temp_db
_UNNAMED = ""

#: The name of the file in messages of faults.
_SHOWN = "the temporary file (TMPDIR names its folder)"


class ScratchFile(SqliteConnection):
    """A connection to the file.  Satisfies ledger.database.Database."""

    def read(self, sql: str, values: Sequence[object]) -> Iterator[tuple[object, ...]]:
        """Run a query and yield its rows as they are fetched; other queries may run before the last row."""
        return self.iterate_rows(sql, values)

    def check(self) -> None:
        """Do nothing: no other program can replace or lock a file without a name."""


@contextlib.contextmanager
def open_scratch_file() -> Iterator[ScratchFile]:
    """Yield a connection to an empty file, which ends with it.

    Raises:
        StoreError: the file cannot be made.
    """
    try:
        db = connect(_UNNAMED)
    except sqlite3.Error as error:
        raise StoreError(describe(_SHOWN, error)) from error
    with contextlib.closing(ScratchFile(db, _SHOWN)) as scratch:
        yield scratch
