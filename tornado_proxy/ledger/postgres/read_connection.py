"""Read-only connections to a PostgreSQL ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.ledger.database import Read, ReadTimeout
from tornado_proxy.ledger.postgres.database import connect, describe, use_driver_placeholders

#: Rows of one fetch from the server; `is_over` is polled between two.
_ROWS_PER_FETCH = 2000

#: Milliseconds until the server must have the first rows of a query that may be cancelled.
_STATEMENT_TIMEOUT_MS = 10_000

_UNREADABLE = "the ledger cannot be read"


@contextlib.contextmanager
def read_server(
    address: PostgresAddress, is_over: Callable[[], bool] | None, *, snapshot: bool = False
) -> Iterator[Read]:
    """Open a read-only connection to a ledger's database (see Backend.read)."""
    try:
        with contextlib.closing(connect(address)) as db:
            db.execute(f"BEGIN {'ISOLATION LEVEL REPEATABLE READ ' if snapshot else ''}READ ONLY".encode())
            if is_over is not None:
                db.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}".encode())
            yield lambda sql, values: _fetch_rows(db, sql, values, is_over)
    except psycopg.errors.QueryCanceled as error:
        raise ReadTimeout from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        advice = "the server makes it at its first start, and adds what one of an earlier version lacks"
        raise LedgerUnavailable(f"{address.url}: there is no ledger; {advice}", client_message=_UNREADABLE) from error
    except psycopg.Error as error:
        raise LedgerUnavailable(describe(address.url, error), client_message=_UNREADABLE) from error


def _fetch_rows(
    db: psycopg.Connection, sql: str, values: Sequence[object], is_over: Callable[[], bool] | None
) -> Iterator[tuple[Any, ...]]:
    # A named cursor keeps the rows on the server until they are fetched; psycopg's default fetches all of them at once.
    with db.cursor("bills") as cursor:
        cursor.execute(use_driver_placeholders(sql), values)
        while rows := cursor.fetchmany(_ROWS_PER_FETCH):
            yield from rows
            if is_over is not None and is_over():
                raise ReadTimeout
