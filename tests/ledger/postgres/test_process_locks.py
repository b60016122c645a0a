"""Advisory locks tell the processes of all machines which of them live."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.ledger.postgres.database import PostgresDatabase
from tornado_proxy.ledger.postgres.process_locks import PostgresProcessLocks

FIRST, SECOND = "a" * 32, "f" * 32


def connect(address: PostgresAddress) -> contextlib.closing[PostgresDatabase]:
    return contextlib.closing(PostgresDatabase(address, fsync=False))


def test_registered_process_is_alive_until_it_releases(postgres_address: PostgresAddress) -> None:
    with connect(postgres_address) as first_db, connect(postgres_address) as second_db:
        first, second = PostgresProcessLocks(first_db, FIRST), PostgresProcessLocks(second_db, SECOND)
        assert second.is_dead(FIRST)
        first.register()
        assert not second.is_dead(FIRST)

        first.release()

        assert second.is_dead(FIRST)


def test_process_is_never_dead_for_itself(postgres_address: PostgresAddress) -> None:
    with connect(postgres_address) as db:
        assert not PostgresProcessLocks(db, FIRST).is_dead(FIRST)


def test_new_connection_of_a_process_registers_beside_its_old_one(postgres_address: PostgresAddress) -> None:
    with connect(postgres_address) as old_db, connect(postgres_address) as new_db, connect(postgres_address) as db:
        PostgresProcessLocks(old_db, FIRST).register()
        PostgresProcessLocks(new_db, FIRST).register()
        old_db.close()

        assert not PostgresProcessLocks(db, SECOND).is_dead(FIRST)


def test_opening_lock_is_free_after_the_block(postgres_address: PostgresAddress) -> None:
    with connect(postgres_address) as first, connect(postgres_address) as second:
        for db in (first, second):
            with PostgresProcessLocks(db, FIRST).hold_opening_lock():
                pass


def test_process_that_was_found_dead_registers_after_its_reservations_are_freed(
    postgres_address: PostgresAddress,
) -> None:
    with connect(postgres_address) as first_db, connect(postgres_address) as second_db, ThreadPoolExecutor(1) as thread:
        with PostgresProcessLocks(second_db, SECOND).hold_dead(FIRST) as is_dead:
            returning = thread.submit(PostgresProcessLocks(first_db, FIRST).register)
            assert is_dead
            with connect(postgres_address) as db:
                assert PostgresProcessLocks(db, "b" * 32).is_dead(FIRST)
            assert wait_for_waiting(second_db)
            assert not returning.done()
        returning.result(timeout=10)
        assert not PostgresProcessLocks(second_db, SECOND).is_dead(FIRST)


def wait_for_waiting(db: PostgresDatabase) -> bool:
    """Return True when a connection waits for a lock; False after seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if db.fetch_rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            return True
    return False
