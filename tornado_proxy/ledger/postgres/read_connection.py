"""Read-only connections to a PostgreSQL ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.ledger_address import PostgresAddress
from tornado_proxy.ledger.postgres.database import connect, describe, translated
from tornado_proxy.ledger.reports.read_connection import Read, ReadTimeout

#: Rows that are fetched at once.
_ROWS = 2000

#: Milliseconds until the first rows of a query that can be cut off must be there.
_TIMEOUT_MS = 10_000


@contextlib.contextmanager
def reading_postgres(address: PostgresAddress, over: Callable[[], bool] | None) -> Iterator[Read]:
    """As reading.reading()."""
    try:
        with contextlib.closing(connect(address)) as db:
            db.execute("BEGIN READ ONLY")
            if over is not None:
                db.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}".encode())
            yield lambda sql, values: _rows(db, sql, values, over)
    except psycopg.errors.QueryCanceled as error:
        raise ReadTimeout from error
    except psycopg.errors.UndefinedTable as error:
        raise LedgerUnavailable(f"{address.url}: there is no ledger; the server makes it at its first start") from error
    except psycopg.Error as error:
        raise LedgerUnavailable(describe(address.url, error)) from error


def _rows(
    db: psycopg.Connection, sql: str, values: Sequence[str], over: Callable[[], bool] | None
) -> Iterator[tuple[Any, ...]]:
    # A named cursor is the server's: the rows stay there until they are fetched.
    with db.cursor("bills") as cursor:
        cursor.execute(translated(sql), values)
        while rows := cursor.fetchmany(_ROWS):
            yield from rows
            if over is not None and over():
                raise ReadTimeout
