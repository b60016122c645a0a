"""The description of a server's faults, and the placeholders of its driver."""

from __future__ import annotations

import psycopg
import pytest

from tornado_proxy.ledger.postgres.database import describe, use_driver_placeholders

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
