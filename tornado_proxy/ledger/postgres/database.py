"""The connection to a PostgreSQL server.  The one file that knows psycopg, which the extra `postgresql` installs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tornado_proxy.domain.ledger_address import PostgresAddress
from tornado_proxy.ledger.database import StoreError
from tornado_proxy.ledger.dialect import POSTGRES, Dialect

#: The schema that holds the tables, so that the database may be another program's too.
SCHEMA = "tornado_proxy"

#: Seconds that one statement may take.
_STATEMENT_S = 10

#: What is set unless the URL says otherwise.  A connection whose server has gone in silence fails within 10 seconds.
_SETTINGS: Mapping[str, Any] = {
    "application_name": "tornado-proxy",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

#: What to do about a state that the server reports, by the start of its code (PostgreSQL, appendix A).
_BY_STATE: Mapping[str, str] = {
    "53100": "the server's disk is full ({error}); free space on it",
    "53": "the server lacks something ({error}); see its log",
    "25006": "the server takes no writes now ({error}); name the primary in ledger.url",
    "42501": "the login may not do that ({error}); let it own the schema tornado_proxy, or create it",
    "42P01": "a table is gone ({error}); restore a backup",
    "57": "the server has stopped or is about to ({error}); start it",
}

#: The same for a connection that was not made, by what its message holds.
_BY_WORDS: Mapping[str, str] = {
    "password": "the server refuses the login ({error}); check ledger.password and the server's pg_hba.conf",
    "authentication": "the server refuses the login ({error}); check ledger.password and the server's pg_hba.conf",
    "pg_hba.conf": "the server refuses the login ({error}); check the server's pg_hba.conf",
    "does not exist": "the database or login is missing ({error}); create it",
}


def connect(address: PostgresAddress) -> psycopg.Connection:
    """A connection without a transaction around each statement, in the schema of the tables."""
    settings = {**_SETTINGS, **conninfo_to_dict(address.url)}
    if address.password is not None:
        settings["password"] = address.password.reveal()
    db = psycopg.connect(autocommit=True, **settings)
    try:
        db.execute(f"SET search_path = {SCHEMA}".encode())
    except BaseException:
        db.close()
        raise
    return db


class PostgresDatabase:
    """One connection to a ledger database.  Satisfies ledger.database.Database."""

    def __init__(self, address: PostgresAddress, *, fsync: bool) -> None:
        """Connect, and make the schema where it is missing.

        `fsync` waits for the server's disk at each commit, whatever the server's own setting is.

        Raises:
            StoreError: no connection, or one that cannot be used.
        """
        self._address = address
        with self._telling():
            self._db = connect(address)
            try:
                self._set_up(fsync=fsync)
            except BaseException:
                self._db.close()
                raise

    def _set_up(self, *, fsync: bool) -> None:
        ((encoding,),) = self.rows("SHOW server_encoding")
        if encoding != "UTF8":
            raise StoreError(f"{self.name}: the database's encoding is {encoding}; create it with ENCODING 'UTF8'")
        self.run(f"SET statement_timeout = '{_STATEMENT_S}s'")
        if fsync:
            self.run("SET synchronous_commit = on")
        self.check()
        if not self.rows("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)):
            self.run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")

    @property
    def name(self) -> str:
        """The URL, which has no password."""
        return self._address.url

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return POSTGRES

    def tables(self) -> frozenset[str]:
        """The tables of the schema."""
        found = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = ?", (SCHEMA,))
        return frozenset(str(name) for (name,) in found)

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table."""
        sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
        return frozenset(str(name) for (name,) in self.rows(sql, (SCHEMA, table)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction whose statements go to the server in one piece, without waiting for each one's answer."""
        with self._telling(), self._db.pipeline(), self._db.transaction():
            yield

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement."""
        with self._telling():
            self._db.execute(translated(sql), values)

    def script(self, sql: str) -> None:
        """Run statements in a transaction of their own."""
        with self._telling(), self._db.transaction():
            self._db.execute(sql.encode())

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a query."""
        with self._telling():
            return self._db.execute(translated(sql), values).fetchall()

    def check(self) -> None:
        """See that the server is there and takes writes."""
        ((read_only,),) = self.rows("SHOW transaction_read_only")
        if read_only == "on":
            raise StoreError(f"{self.name}: the server takes no writes now; name the primary in ledger.url")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError):
            raise  # these tell of values; all else, such as a table or a right that is gone, of the store
        except (psycopg.Error, OSError) as error:
            raise StoreError(describe(self._address.url, error)) from error


def describe(url: str, error: Exception) -> str:
    """What is wrong with the server, and what an operator can do, in one line."""
    words = " ".join(str(error).split())
    state = getattr(error, "sqlstate", None)
    if state is not None:
        advice = next((text for start, text in _BY_STATE.items() if state.startswith(start)), "{error}")
    else:
        unreachable = "the server cannot be reached ({error}); see that it runs, and that ledger.url names it"
        advice = next((text for part, text in _BY_WORDS.items() if part in words), unreachable)
    return f"{url}: {advice.format(error=words)}"


@cache
def translated(sql: str) -> bytes:
    """SQL with psycopg's own sign for a parameter.  None of ours holds a literal `?` or `%`."""
    return sql.replace("?", "%s").encode()
