"""The description of a server's faults, and the placeholders of its driver."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from tests.harness import TIMEOUT_S, wait_until
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.ledger.postgres.database import PostgresDatabase, describe, use_driver_placeholders

URL = "postgresql://proxy@db/ledger"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (psycopg.errors.DiskFull("could not extend file"), "free space on it"),
        (psycopg.errors.TooManyConnections("too many clients"), "see its log"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "name the primary in ledger.url"),
        (psycopg.errors.InsufficientPrivilege("permission denied"), "let it own the schema tornado_proxy"),
        (
            psycopg.errors.InsufficientPrivilege("permission denied"),
            "GRANT SELECT ON ALL TABLES IN SCHEMA tornado_proxy",
        ),
        (psycopg.errors.UndefinedTable("relation does not exist"), "restore a backup"),
        (psycopg.errors.AdminShutdown("terminating connection"), "start it"),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), "another program holds a lock"),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), "end it, such as a long report"),
        (psycopg.OperationalError("fe_sendauth: no password supplied"), "check ledger.password"),
        (psycopg.OperationalError('database "nothing" does not exist'), "create it"),
        (psycopg.OperationalError("connection refused"), "see that it runs, and that ledger.url names it"),
        (psycopg.errors.SyntaxError("syntax error"), "syntax error"),
    ],
)
def test_fault_is_described_with_its_remedy(error: Exception, remedy: str) -> None:
    text = describe(URL, error)

    assert text.startswith(f"{URL}: ")
    assert remedy in text


def test_description_is_one_line() -> None:
    assert "\n" not in describe(URL, psycopg.OperationalError("connection failed:\n\tconnection refused\n"))


def test_placeholders_are_those_of_the_driver() -> None:
    assert use_driver_placeholders("SELECT 1 WHERE a = ? AND b = ?") == b"SELECT 1 WHERE a = %s AND b = %s"


def test_schema_that_another_process_makes_at_the_same_time_is_used(postgres_address: PostgresAddress) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def connect() -> frozenset[str]:
        with contextlib.closing(PostgresDatabase(postgres_address, fsync=False)) as db:
            return db.list_tables()

    with (
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(postgres_address.url) as other,
        psycopg.connect(postgres_address.url, autocommit=True) as observer,
    ):
        other.execute("CREATE SCHEMA tornado_proxy")
        tables = thread.submit(connect)
        wait_until(lambda: observer.execute(waiting.encode()).fetchone() == (1,), "the second CREATE SCHEMA")
        other.commit()

        assert tables.result(TIMEOUT_S) == frozenset()


def test_change_of_tables_that_meets_a_writer_of_an_earlier_version_is_tried_again(
    postgres_address: PostgresAddress,
) -> None:
    """The writer locks two tables in the other order, so the server ends the transaction of one of them."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    impatient = replace(postgres_address, url=f"{postgres_address.url}&options=-c%20deadlock_timeout%3D300ms")
    with (
        ThreadPoolExecutor(1) as thread,
        contextlib.closing(PostgresDatabase(impatient, fsync=False)) as db,
        psycopg.connect(postgres_address.url) as writer,
        psycopg.connect(postgres_address.url, autocommit=True) as observer,
    ):
        db.run_script("CREATE TABLE intents (id INTEGER); CREATE TABLE records (id INTEGER);")
        writer.execute("INSERT INTO tornado_proxy.records VALUES (1)")
        change = "ALTER TABLE intents ADD COLUMN room TEXT; ALTER TABLE records ADD COLUMN room TEXT;"
        changed = thread.submit(db.run_script, change)
        wait_until(lambda: observer.execute(waiting.encode()).fetchone() == (1,), "the change of the tables")
        writer.execute("DELETE FROM tornado_proxy.intents")
        writer.commit()

        changed.result(TIMEOUT_S)
        assert db.list_columns("records") == {"id", "room"}


def test_isolation_level_of_the_server_has_no_effect(postgres_address: PostgresAddress) -> None:
    """With another level, a transaction that has waited for a lock fails, or does not see the commit of its holder."""
    with psycopg.connect(postgres_address.url, autocommit=True) as server:
        name = server.info.dbname
        server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode())

    with contextlib.closing(PostgresDatabase(postgres_address, fsync=False)) as db:
        assert db.fetch_rows("SHOW transaction_isolation") == [("read committed",)]
