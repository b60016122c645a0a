"""A PostgreSQL server that stops, starts again, hangs, or cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.harness import wait_until
from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import make_intent, make_record
from tests.postgres_server import PostgresServer, running_postgres
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.ledger.backends import make_backend, make_ledger
from tornado_proxy.ledger.changes import find_end
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.ledger.sums.verification import verify_sums
from tornado_proxy.ledger.writer.group_commit import LedgerTimeouts

#: Seconds; far above what any step takes.
TIMEOUT_S = 30


@pytest.fixture(scope="module")
def shared_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def server(shared_server: PostgresServer) -> PostgresServer:
    """Return a running server that the test may stop; its configuration must stay as it is."""
    if shared_server.process is None:
        shared_server.start()
    return shared_server


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """Run a server whose configuration the test may change."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def address(server: PostgresServer, tmp_path: Path) -> PostgresAddress:
    return new_address(server, tmp_path)


def new_address(server: PostgresServer, folder: Path) -> PostgresAddress:
    """Return the address of a new database of `server`."""
    return PostgresAddress(server.new_database(), None, folder / "journal")


def basis_by_id(address: PostgresAddress) -> dict[object, object]:
    records = [dict(record) for record in read_records(make_backend(address), UsageFilter())]
    assert max(Counter(record["request_id"] for record in records).values(), default=1) == 1
    return {record["request_id"]: record["basis"] for record in records}


async def wait_for(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():  # noqa: ASYNC110  # a thread or the server makes it true
            await asyncio.sleep(0.01)


async def open_ledger(address: PostgresAddress) -> Ledger:
    ledger = make_ledger(address)
    await ledger.open()
    return ledger


def test_record_finished_while_the_server_is_stopped_is_written_after_its_start(
    server: PostgresServer, address: PostgresAddress
) -> None:
    async def run() -> None:
        ledger = await open_ledger(address)
        await ledger.begin(make_intent("r1"))
        server.stop()
        await wait_for(lambda: not ledger.healthy)

        with pytest.raises(LedgerUnavailable, match=r"the server (cannot be reached|has stopped)"):
            await ledger.begin(make_intent("r2"))
        done = ledger.finish(make_record(make_intent("r1")))
        await asyncio.sleep(0.3)
        assert not done.done()
        server.start()
        await asyncio.wait_for(done, TIMEOUT_S)

        assert ledger.healthy
        await ledger.close()
        assert basis_by_id(address) == {"r1": "reported"}

    asyncio.run(run())


def test_server_crash_under_load_loses_and_doubles_no_request(server: PostgresServer, address: PostgresAddress) -> None:
    begun: list[str] = []
    finished: list[Awaitable[None]] = []

    async def caller(ledger: Ledger, name: str, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            intent = make_intent(f"{name}-{number}")
            try:
                await ledger.begin(intent)
            except LedgerUnavailable:
                await asyncio.sleep(0.02)
                continue
            begun.append(intent.request_id)
            await asyncio.sleep(0)
            finished.append(ledger.finish(make_record(intent)))

    async def run() -> None:
        ledger, stop = await open_ledger(address), asyncio.Event()
        callers = [asyncio.ensure_future(caller(ledger, f"c{number}", stop)) for number in range(20)]
        for _ in range(2):
            count = len(begun)
            await wait_for(lambda count=count: len(begun) > count + 200)  # type: ignore[misc]  # bound now
            # An immediate shutdown: the server recovers from its log at the next start, as after a crash.
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await wait_for(lambda: not ledger.healthy)
            await asyncio.to_thread(server.start)
            await wait_for(lambda: ledger.healthy)
        stop.set()
        await asyncio.gather(*callers)
        await asyncio.wait_for(asyncio.gather(*finished), TIMEOUT_S)
        await ledger.close()
        again = await open_ledger(address)
        await again.close()

    asyncio.run(run())

    # A refused request is not sent, and must not count as lost, whether or not its transaction was committed.
    assert basis_by_id(address) == dict.fromkeys(begun, "reported")


def test_process_that_lives_through_a_server_restart_takes_its_intents_back(
    server: PostgresServer, address: PostgresAddress
) -> None:
    async def run() -> None:
        ledger = await open_ledger(address)
        await ledger.begin(make_intent("r1"))
        server.stop()
        server.start()
        other = await open_ledger(address)  # may find the lock of the first one free
        await wait_for(lambda: ledger.healthy and basis_by_id(address) == {})
        await other.close()
        await ledger.finish(make_record(make_intent("r1")))
        await ledger.close()

        assert basis_by_id(address) == {"r1": "reported"}

    asyncio.run(run())


def test_hanging_server_refuses_new_requests_and_loses_no_record(
    server: PostgresServer, address: PostgresAddress
) -> None:
    async def run() -> None:
        ledger = make_ledger(address, timeouts=LedgerTimeouts(watch_s=0.05, hangs_s=0.5))
        await ledger.open()
        await ledger.begin(make_intent("r1"))
        with stopped(find_server_process(server, address)):
            begun = asyncio.ensure_future(ledger.begin(make_intent("r2")))
            done = ledger.finish(make_record(make_intent("r1")))
            with pytest.raises(LedgerUnavailable, match="its disk or server hangs"):
                await asyncio.wait_for(begun, TIMEOUT_S)
            assert not ledger.healthy
            with pytest.raises(LedgerUnavailable, match="no new requests"):
                await ledger.begin(make_intent("r3"))
        await asyncio.wait_for(done, TIMEOUT_S)
        await wait_for(lambda: ledger.healthy)
        await ledger.close()
        await (await open_ledger(address)).close()

        assert basis_by_id(address) == {"r1": "reported"}

    asyncio.run(run())


def test_hanging_server_does_not_keep_the_process_from_ending(
    server: PostgresServer, address: PostgresAddress, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        ledger = make_ledger(address, timeouts=LedgerTimeouts(close_s=0.2))
        await ledger.open()
        await ledger.begin(make_intent("r1"))
        with stopped(find_server_process(server, address)):
            ledger.finish(make_record(make_intent("r1")))
            await asyncio.wait_for(ledger.close(), TIMEOUT_S)

    asyncio.run(run())

    assert "the ledger's writer does not end; closing without it" in caplog.messages


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """Stop a process with SIGSTOP, and let it continue afterwards."""
    # A stopped process keeps its connections open and does not respond, as a server whose disk hangs.
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def find_server_process(server: PostgresServer, address: PostgresAddress) -> int:
    """Return the id of the server's process for the ledger's connection."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'tornado-proxy'"
    with psycopg.connect(server.url("postgres")) as db:
        ((process,),) = db.execute(sql, (address.url.partition("?")[0].rpartition("/")[2],)).fetchall()
    return int(process)


def test_process_of_another_machine_keeps_its_open_intents(address: PostgresAddress, tmp_path: Path) -> None:
    async def run() -> None:
        first = await open_ledger(address)
        await first.begin(make_intent("r1"))
        second = await open_ledger(replace(address, journal=tmp_path / "another machine"))
        assert basis_by_id(address) == {}
        await first.close()
        await second.close()
        third = await open_ledger(address)
        await third.close()

        assert basis_by_id(address) == {"r1": "unsettled"}

    asyncio.run(run())


def test_tables_are_in_a_schema_of_their_own(address: PostgresAddress) -> None:
    async def run() -> None:
        await (await open_ledger(address)).close()

    with psycopg.connect(address.url, autocommit=True) as db:
        db.execute("CREATE TABLE records (of_another_program TEXT)")
    asyncio.run(run())

    with psycopg.connect(address.url) as db:
        tables = db.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE tablename IN ('records', 'meta') ORDER BY 1"
        )
        assert [name for (name,) in tables] == ["public.records", "tornado_proxy.meta", "tornado_proxy.records"]


def test_database_without_tables_is_no_ledger(address: PostgresAddress) -> None:
    with pytest.raises(LedgerUnavailable, match="there is no ledger; the server makes it at its first start"):
        list(read_records(make_backend(address), UsageFilter()))


def test_report_names_an_unreachable_server(server: PostgresServer, address: PostgresAddress) -> None:
    server.stop()

    with pytest.raises(LedgerUnavailable, match="the server cannot be reached"):
        list(read_records(make_backend(address), UsageFilter()))


def test_login_with_read_rights_can_report(server: PostgresServer, address: PostgresAddress) -> None:
    async def run() -> None:
        ledger = await open_ledger(address)
        await ledger.finish(make_record(make_intent("r1")))
        await ledger.close()

    asyncio.run(run())
    with psycopg.connect(address.url, autocommit=True) as db:
        db.execute("CREATE ROLE r LOGIN")
        db.execute("GRANT USAGE ON SCHEMA tornado_proxy TO r")  # as docs/ledger.md has it
        db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA tornado_proxy TO r")

    assert basis_by_id(replace(address, url=address.url.replace("owner@", "r@"))) == {"r1": "reported"}


def open_and_fail(address: PostgresAddress) -> str:
    with pytest.raises(LedgerUnavailable) as refused:
        asyncio.run(open_ledger(address))
    message = str(refused.value)
    assert message.startswith(f"{address.url}: ")
    assert "\n" not in message
    return message


def is_writable(server: PostgresServer) -> bool:
    with psycopg.connect(server.url("postgres")) as db:
        return db.execute("SHOW transaction_read_only").fetchone() == ("off",)


def accepts_all(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.url("postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


def test_missing_server_is_reported_in_one_line(tmp_path: Path) -> None:
    address = PostgresAddress(f"postgresql://owner@/ledger?host={tmp_path}", Secret("hunter2"), tmp_path)

    message = open_and_fail(address)

    assert "the server cannot be reached" in message
    assert "see that it runs, and that ledger.url names it" in message
    assert "hunter2" not in message


def test_missing_database_is_reported_in_one_line(server: PostgresServer, tmp_path: Path) -> None:
    message = open_and_fail(PostgresAddress(server.url("nothing"), None, tmp_path))

    assert 'database "nothing" does not exist' in message
    assert message.endswith("create it")


def test_database_with_another_encoding_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as db:
        db.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

    assert "create it with ENCODING 'UTF8'" in open_and_fail(PostgresAddress(server.url("latin"), None, tmp_path))


def test_read_only_server_is_refused(own_server: PostgresServer, tmp_path: Path) -> None:
    address = new_address(own_server, tmp_path)
    with psycopg.connect(own_server.url("postgres"), autocommit=True) as db:
        db.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        db.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not is_writable(own_server), "the server to read its configuration")

    assert "takes no writes now" in open_and_fail(address)


def test_standby_reports_usage_and_refuses_to_be_followed(own_server: PostgresServer, tmp_path: Path) -> None:
    """It does not have the locks of the writers, so a record that commits late could be missed."""
    address = new_address(own_server, tmp_path)
    LedgerUnderTest(address, fsync=False).write(make_intent("r1"))
    own_server.stop()
    (own_server.folder / "data" / "standby.signal").touch()
    own_server.start()

    (total,) = sum_records(make_backend(address), UsageFilter(), ["model"])
    assert total.requests == 1
    assert [day.records for day in verify_sums(make_backend(address), "", "~")] == [0]
    with pytest.raises(
        LedgerUnavailable, match="a standby does not know which records are being written; name the primary"
    ):
        find_end(make_backend(address))


def test_login_without_rights_is_told_which_it_needs(server: PostgresServer, address: PostgresAddress) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as db:
        db.execute("CREATE ROLE guest LOGIN")

    message = open_and_fail(replace(address, url=address.url.replace("owner@", "guest@")))

    assert "permission denied" in message
    assert "let it own the schema tornado_proxy, or create it" in message


def test_password_is_used_and_a_wrong_one_is_reported(own_server: PostgresServer, tmp_path: Path) -> None:
    address = new_address(own_server, tmp_path)
    with psycopg.connect(own_server.url("postgres"), autocommit=True) as db:
        db.execute("ALTER ROLE owner PASSWORD 'hunter2'")
    rules = own_server.folder / "data" / "pg_hba.conf"
    rules.write_text("local all all scram-sha-256\n")
    with psycopg.connect(own_server.url("postgres"), autocommit=True, password="hunter2") as db:
        db.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not accepts_all(own_server), "the server to read its configuration")

    async def run() -> None:
        ledger = await open_ledger(replace(address, password=Secret("hunter2")))
        await ledger.finish(make_record(make_intent("r1")))
        await ledger.close()

    asyncio.run(run())
    assert basis_by_id(replace(address, password=Secret("hunter2"))) == {"r1": "reported"}
    message = open_and_fail(replace(address, password=Secret("hunter3")))
    assert "the server refuses the login" in message
    assert "check ledger.password" in message
    assert "hunter3" not in message
