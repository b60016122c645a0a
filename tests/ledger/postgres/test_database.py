"""The description of a server's faults, and the placeholders of its driver."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.harness import TIMEOUT_S, wait_until
from tornado_proxy.domain.ledger_address import PostgresAddress
from tornado_proxy.ledger.postgres.database import PostgresDatabase, describe, use_driver_placeholders

URL = "postgresql://proxy@db/ledger"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (psycopg.errors.DiskFull("could not extend file"), "free space on it"),
        (psycopg.errors.TooManyConnections("too many clients"), "see its log"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "name the primary in ledger.url"),
        (psycopg.errors.InsufficientPrivilege("permission denied"), "let it own the schema tornado_proxy"),
        (psycopg.errors.UndefinedTable("relation does not exist"), "restore a backup"),
        (psycopg.errors.AdminShutdown("terminating connection"), "start it"),
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
