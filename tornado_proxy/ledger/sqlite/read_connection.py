"""Read-only connections to a ledger file that another thread or process may be writing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import Read, ReadTimeout

#: Instructions of SQLite's virtual machine between two polls of `is_over`, about a millisecond.
_INSTRUCTIONS_PER_POLL = 100_000

_UNREADABLE = "the ledger cannot be read"


@contextlib.contextmanager
def read_file(path: Path, is_over: Callable[[], bool] | None, *, snapshot: bool = False) -> Iterator[Read]:
    """Open a read-only connection to a ledger file (see Backend.read)."""
    # sqlite3.connect would report "unable to open database file", which does not say that the file is missing.
    if not path.exists():
        raise LedgerUnavailable(
            f"{path}: there is no ledger; the server makes it at its first start", client_message=_UNREADABLE
        )
    try:
        with contextlib.closing(_connect(path)) as db:
            db.set_progress_handler(is_over, _INSTRUCTIONS_PER_POLL)
            if snapshot:
                db.execute("BEGIN")
            yield lambda sql, values: db.execute(sql, values)
    except sqlite3.Error as error:
        if is_over is not None and is_over():
            raise ReadTimeout from error
        # "no such table" or "no such column" of a file that an earlier version has written.
        advice = "; a server of this version adds it at its start" if "no such" in str(error) else ""
        message = f"{path}: cannot be read as a ledger: {error}{advice}"
        raise LedgerUnavailable(message, client_message=_UNREADABLE) from error


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        db.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A reader without write access to the folder cannot create the -shm file that WAL mode needs.  Without a -wal
        # file no process has the ledger open and the main file is complete, so `immutable` is safe.
        # https://sqlite.org/wal.html#read_only_databases
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    return db
