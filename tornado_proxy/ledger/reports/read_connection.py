"""Read-only connections to a ledger that another process, or another thread, may be writing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.ledger_address import LedgerAddress

#: Steps of SQLite's machine between two looks at the clock, a millisecond or so.
_STEPS = 100_000


class ReadTimeout(Exception):
    """A query was cut off by its `over`."""


#: Runs a query, with `?` for a parameter, and gives its rows as they come: none of them is kept.
Read = Callable[[str, Sequence[str]], Iterator[Any]]


def reading(ledger: LedgerAddress, over: Callable[[], bool] | None = None) -> AbstractContextManager[Read]:
    """A connection that cannot change the ledger.  A query is cut off when `over()`, asked often, is true.

    Raises, within too:
        LedgerUnavailable: it is not there, cannot be read, or is no ledger.
        ReadTimeout: a query was cut off.
    """
    if isinstance(ledger, Path):
        return _reading_sqlite(ledger, over)
    with needs_driver():
        from tornado_proxy.ledger.postgres.read_connection import reading_postgres
    return reading_postgres(ledger, over)


@contextlib.contextmanager
def needs_driver() -> Iterator[None]:
    """Say what to install where an import within fails."""
    try:
        yield
    except ImportError as error:
        raise LedgerUnavailable(
            "a PostgreSQL ledger needs the driver psycopg: pip install 'tornado-proxy[postgresql]'"
        ) from error


@contextlib.contextmanager
def _reading_sqlite(path: Path, over: Callable[[], bool] | None) -> Iterator[Read]:
    if not path.exists():
        raise LedgerUnavailable(f"{path}: there is no ledger; the server makes it at its first start")
    try:
        with contextlib.closing(_connect(path)) as db:
            db.set_progress_handler(over, _STEPS)
            yield lambda sql, values: db.execute(sql, values)
    except sqlite3.Error as error:
        if over is not None and over():
            raise ReadTimeout from error
        raise LedgerUnavailable(f"{path}: cannot be read as a ledger: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        db.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # A reader who may not write in the folder cannot make the files that WAL needs.  Without a log of changes the
        # file is whole and nobody writes it.
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    return db
