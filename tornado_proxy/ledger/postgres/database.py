"""The connection that writes to a PostgreSQL server.  Needs psycopg, which the extra `postgresql` installs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.dialect import BoundStatement, Insert, Values

_encode = msgspec.json.Encoder().encode

#: The schema of the tables.  It lets the database belong to another program too.
SCHEMA = "tornado_proxy"

#: Seconds that one statement may take, except those that change the tables; these wait for locks no longer.
_STATEMENT_TIMEOUT_S = 10

# An index of a large table takes minutes.
_ALLOW_LONG_STATEMENTS = f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{_STATEMENT_TIMEOUT_S}s'; "

#: Rows that one fetch of a query with many brings.
_ROWS_PER_FETCH = 1000

#: How often a change of the tables is tried: processes of an earlier version, which announce no writers, can take locks
#: in the other order.
_MAX_TRIES = 5

#: Connection parameters that the URL does not set.  With them a connection to a server that has become unreachable
#: fails within about 10 seconds; Linux's own keepalive waits for two hours, its retransmissions for 15 minutes.
_DEFAULT_PARAMETERS: Mapping[str, Any] = {
    "application_name": "tornado-proxy",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# The server's side of the same: it frees the locks of a machine that has lost power or its network.  Its own default
# is that of Linux.  A connection over a Unix socket ignores them.
_SET_KEEPALIVES = (
    "SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false), "
    "set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)"
)

#: The remedy for a fault that the server reports, by the start of its SQLSTATE.  More specific codes come first.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_REMEDIES_BY_STATE: Mapping[str, str] = {
    "53100": "the server's disk is full ({error}); free space on it",
    "53": "the server lacks something ({error}); see its log",
    "25006": "the server takes no writes now ({error}); name the primary in ledger.url",
    "42501": "the login may not do that ({error}); let it own the schema tornado_proxy, or create it; to read reports, "
    "GRANT SELECT ON ALL TABLES IN SCHEMA tornado_proxy",
    "42P01": "a table is missing ({error}); restore a backup",
    "55P03": "another transaction holds a lock on the tables ({error}); end it, such as a long report, and try again",
    "57014": f"a statement has taken longer than {_STATEMENT_TIMEOUT_S} s ({{error}}); the server is overloaded, or "
    "another program holds a lock, such as a process that changes the tables; try again",
    "57": "the server has stopped or is about to ({error}); start it",
}

#: The same for a connection that failed, by a part of libpq's message: libpq reports no SQLSTATE for it.
_REMEDIES_BY_TEXT: Mapping[str, str] = {
    "password": "the server refuses the login ({error}); check ledger.password and the server's pg_hba.conf",
    "authentication": "the server refuses the login ({error}); check ledger.password and the server's pg_hba.conf",
    "pg_hba.conf": "the server refuses the login ({error}); check the server's pg_hba.conf",
    "does not exist": "the database or login is missing ({error}); create it",
}


# A transaction that has waited for a lock must see the commits of others, whatever the server's default is.
_SET_SESSION = (
    f"SET search_path = {SCHEMA}; SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED".encode()
)


def connect(address: PostgresAddress) -> psycopg.Connection:
    """Return a connection in autocommit mode whose search path is the ledger's schema."""
    parameters = {**_DEFAULT_PARAMETERS, **conninfo_to_dict(address.url)}
    if address.password is not None:
        parameters["password"] = address.password.reveal()
    db = psycopg.connect(autocommit=True, **parameters)
    try:
        db.execute(_SET_SESSION)
    except BaseException:
        db.close()
        raise
    return db


class PostgresDatabase:
    """A connection to a ledger's database.  Satisfies ledger.database.Database."""

    def __init__(self, address: PostgresAddress, *, fsync: bool) -> None:
        """Connect, and create the schema if it does not exist.

        Args:
            address: the server and the database.
            fsync: True if each commit waits for the server's disk, whatever the server's own setting is.

        Raises:
            StoreError: the connection fails, or the database cannot hold a ledger.
        """
        self._address = address
        with self._raising_store_errors():
            self._db = connect(address)
            try:
                self._set_up(fsync=fsync)
            except BaseException:
                self._db.close()
                raise

    def _set_up(self, *, fsync: bool) -> None:
        ((encoding,),) = self.fetch_rows("SHOW server_encoding")
        # With another encoding, names that UTF-8 clients send would fail or change.
        if encoding != "UTF8":
            raise StoreError(
                f"{self._address.url}: the database's encoding is {encoding}; create it with ENCODING 'UTF8'"
            )
        self.run(f"SET statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
        self.fetch_rows(_SET_KEEPALIVES)
        if fsync:
            self.run("SET synchronous_commit = on")
        self.check()
        # CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it exists.
        if not self.fetch_rows("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)):
            # IF NOT EXISTS does not see the schema of another transaction under way, and fails at its commit.
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                self.run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")

    def list_tables(self) -> frozenset[str]:
        """Return the names of the schema's tables."""
        rows = self.fetch_rows("SELECT tablename FROM pg_tables WHERE schemaname = ?", (SCHEMA,))
        return frozenset(str(name) for (name,) in rows)

    def list_columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's columns."""
        sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
        return frozenset(str(name) for (name,) in self.fetch_rows(sql, (SCHEMA, table)))

    def list_triggers(self, table: str) -> frozenset[str]:
        """Return the names of a table's triggers."""
        sql = "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(?) AND NOT tgisinternal"
        return frozenset(str(name) for (name,) in self.fetch_rows(sql, (f"{SCHEMA}.{table}",)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a transaction whose statements are sent in one piece, without waiting for the response to each."""
        with self._raising_store_errors(), self._db.pipeline(), self._db.transaction():
            yield

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        with self._raising_store_errors():
            self._db.execute(use_driver_placeholders(sql), values)

    def insert(self, insert: Insert, rows: Sequence[Values]) -> None:
        """Insert rows in a transaction."""
        if rows:
            self.run(*make_insert(insert, rows))

    def delete(self, table: str, column: str, values: Sequence[object]) -> None:
        """Delete the rows whose column has one of the values, in a transaction."""
        if values:
            self.run(*make_delete(table, column, values))

    def run_script(self, sql: str) -> None:
        """Run several statements in a transaction of their own, however long they take."""
        with self._raising_store_errors():
            for _ in range(_MAX_TRIES - 1):
                # CREATE TABLE IF NOT EXISTS of two processes at once makes a row of the catalog twice.
                with contextlib.suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                    self._run_script(sql)
                    return
            self._run_script(sql)

    def _run_script(self, sql: str) -> None:
        with self._db.transaction():
            self._db.execute((_ALLOW_LONG_STATEMENTS + sql).encode())

    def fetch_rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query and return its rows."""
        with self._raising_store_errors():
            return self._db.execute(use_driver_placeholders(sql), values).fetchall()

    def iterate_rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        """Run a query and yield its rows, which the server keeps until they are fetched, some at a time."""
        with self._raising_store_errors(), self._db.transaction(), self._db.cursor("rows") as cursor:
            cursor.itersize = _ROWS_PER_FETCH
            yield from cursor.execute(use_driver_placeholders(sql), values)

    def check(self) -> None:
        """Raise StoreError if the server does not respond or is read-only, as a standby is."""
        ((read_only,),) = self.fetch_rows("SHOW transaction_read_only")
        if read_only == "on":
            raise StoreError(f"{self._address.url}: the server takes no writes now; name the primary in ledger.url")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextlib.contextmanager
    def _raising_store_errors(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError):
            raise  # the fault of a value; any other fault, such as a missing table or right, is the store's
        except (psycopg.Error, OSError) as error:
            raise StoreError(describe(self._address.url, error)) from error


def make_insert(insert: Insert, rows: Sequence[Values]) -> BoundStatement:
    """Return one statement whose only parameter is a JSON text of all rows, for the server to parse.

    So any number of rows shares one prepared statement.  Arrays of columns, or a parameter for each value, cost the
    driver 100 microseconds a row.
    """
    objects = [dict(zip(insert.columns, row, strict=True)) for row in rows]
    return _insert_json(insert), (_encode(objects).decode(),)


@cache
def _insert_json(insert: Insert) -> str:
    types = {"status": "integer"} | dict.fromkeys(insert.numbers, "bigint")
    columns = ", ".join(f'"{name}" {types.get(name, "text")}' for name in insert.columns)
    return f"{insert.start} SELECT * FROM json_to_recordset(?::json) AS row({columns}) {insert.end}"  # noqa: S608  # names of ours


def make_delete(table: str, column: str, values: Sequence[object]) -> BoundStatement:
    """Return the statement that deletes the rows of a table whose column has one of the values."""
    return f"DELETE FROM {table} WHERE {column} = ANY(?)", (list(values),)  # noqa: S608  # names of ours


def describe(url: str, error: Exception) -> str:
    """Return a fault of the server and its remedy, in one line for an operator."""
    text = " ".join(str(error).split())
    state = getattr(error, "sqlstate", None)
    if state is not None:
        remedy = next((remedy for start, remedy in _REMEDIES_BY_STATE.items() if state.startswith(start)), "{error}")
    else:
        unreachable = "the server cannot be reached ({error}); see that it runs, and that ledger.url names it"
        remedy = next((remedy for part, remedy in _REMEDIES_BY_TEXT.items() if part in text), unreachable)
    return f"{url}: {remedy.format(error=text)}"


@cache
def use_driver_placeholders(sql: str) -> bytes:
    """Return SQL with psycopg's `%s` in place of `?`.  No SQL of the ledger holds a literal `?` or `%`."""
    return sql.replace("?", "%s").encode()
