"""No process stores a pruned record a second time, however late it writes, and none loses one that was never stored."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.harness import wait_until
from tests.ledger.archives.test_archives import archive, write_and_close
from tests.ledger.conftest import LedgerUnderTest, open_ledger, open_test_database
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.container import ContainerPrice, ContainerTime, PricedUse
from tornado_proxy.ledger.archives.pruning import Pruned, prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.pruned_requests import add_pruned, guard_pruned, is_pruned
from tornado_proxy.ledger.reports.record_sums import sum_records
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.rows import encode_row, make_record_row
from tornado_proxy.ledger.sums.rebuild import catch_up

#: The day of the records of sample_records.py, and the next one.
DAY, NEXT_DAY = "2026-03-02", "2026-03-03"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


def prune(store: LedgerUnderTest, folder: Path) -> Pruned:
    """Archive and prune the records of the day, as another machine does."""
    backend = make_backend(store.address)
    archive(backend, folder, NEXT_DAY)
    return prune_records(backend, NEXT_DAY, folder)


def copy_files(store: LedgerUnderTest, away: Path) -> None:
    away.mkdir()
    for path in make_backend(store.address).files_path.parent.glob("*-writer-*"):
        shutil.copy(path, away)


def leave_files(store: LedgerUnderTest, away: Path) -> None:
    """Write three records; copy the files of the process as they are if it dies before the third is in its log.

    The log also has a record that the process could not store.
    """
    intents = [make_intent(name) for name in ("r1", "r2", "r3")]

    async def run() -> None:
        async with open_ledger(store.make, []) as ledger:
            for intent in intents:
                await ledger.begin(intent)
            for intent in intents[:2]:
                await ledger.finish(make_record(intent))
            await asyncio.to_thread(copy_files, store, away)
            await ledger.finish(make_record(intents[2]))

    asyncio.run(run())
    (log,) = away.glob("*.intents-0")
    with log.open("ab") as file:
        file.write(b"\n" + encode_row(make_record_row(make_record(make_intent("unstored")))))


def start_later(store: LedgerUnderTest, away: Path) -> None:
    """Start the machine that has the files, with a server."""
    shutil.copytree(away, make_backend(store.address).files_path.parent, dirs_exist_ok=True)
    write_and_close(store)


def list_ids(store: LedgerUnderTest) -> list[str]:
    return sorted(str(record["request_id"]) for record in store.records())


def test_machine_that_starts_after_a_prune_stores_no_pruned_record_and_loses_none_that_was_not_stored(
    store: LedgerUnderTest, tmp_path: Path
) -> None:
    leave_files(store, tmp_path / "away")
    store.write(make_intent("last"))
    assert prune(store, tmp_path / "archive") == Pruned(3, 1)

    start_later(store, tmp_path / "away")

    assert list_ids(store) == ["last", "unstored"]
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        catch_up(db, make_backend(store.address).dialect)
    (total,) = sum_records(make_backend(store.address), UsageFilter(), ["project"])
    # Five of 0.0023625: r1, r2, r3, last and unstored.
    assert (total.requests, total.total) == (5, Decimal("0.011812500000"))


def test_record_that_was_pruned_before_ids_were_kept_is_not_stored_after_the_next_prune(
    store: LedgerUnderTest, tmp_path: Path
) -> None:
    leave_files(store, tmp_path / "away")
    store.write(make_intent("last"))
    prune(store, tmp_path / "archive")
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        db.run("DELETE FROM pruned_requests")

        assert prune(store, tmp_path / "archive") == Pruned(0, 4)
        assert prune(store, tmp_path / "archive") == Pruned(0, 4)

        assert db.fetch_rows("SELECT day, first_id, last_id, ids FROM pruned_requests") == [
            (DAY, "r1", "r3", " r1 r2 r3 ")
        ]
    start_later(store, tmp_path / "away")
    assert list_ids(store) == ["last", "unstored"]


def test_process_of_an_earlier_version_cannot_store_a_pruned_record(store: LedgerUnderTest, tmp_path: Path) -> None:
    store.write(make_intent("r1"), make_intent("r10"), make_intent("last"))
    prune(store, tmp_path / "archive")

    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        for request_id in ("r1", "r10", "r", "r100", "1"):
            insert = (
                "INSERT INTO records (request_id, started_at, basis) VALUES (?, '2026-03-02T10:00:00.000Z', 'free')"
            )
            db.run(insert, (request_id,))
        ids = db.fetch_rows("SELECT request_id FROM records ORDER BY request_id")
        known = [name for name in ("r1", "r10", "r", "r100", "1") if is_pruned(db, name, f"{DAY}T10:00:00.000Z")]

    assert ids == [("1",), ("last",), ("r",), ("r100",)]
    assert known == ["r1", "r10"]


def test_many_pruned_records_of_a_day_do_not_make_the_next_transactions_of_a_prune_larger(
    store: LedgerUnderTest,
) -> None:
    """The ids of version 0.1.0 are random, so that those of each transaction are between those of all others."""
    store.write(make_intent("last"))
    batches = [{f"r{number:05}" for number in range(start, 20_000, 40)} for start in range(40)]
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        with db.transaction():
            for batch in batches[:-1]:
                add_pruned(db, DAY, batch, set())
        tracemalloc.start()
        try:
            with db.transaction():
                add_pruned(db, DAY, batches[-1], set())
                add_pruned(db, DAY, set(), batches[0])
                add_pruned(db, DAY, set(), batches[1] | {"r"})
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        rows = db.fetch_rows("SELECT first_id, ids FROM pruned_requests WHERE day = ? ORDER BY first_id", (DAY,))

    assert [(first, len(str(ids).split())) for first, ids in rows] == [
        ("r", 1),
        *((f"r{number:05}", 500) for number in range(40)),
    ]
    # All ids as texts would be some 1.3 MB.
    assert peak_bytes < 400_000


def test_time_of_containers_is_not_charged_for_a_pruned_record_again(store: LedgerUnderTest, tmp_path: Path) -> None:
    day = Decimal(86400)
    price = ContainerPrice("m", "per_day", Decimal(1), day, "h", minimum_s=Decimal(60), free_per_month_s=Decimal(900))
    began = datetime(2026, 3, 2, 10, tzinfo=UTC)
    use = PricedUse("cntr_1", price, "note")
    time = ContainerTime((use,), "openai", "project-a", began, began + timedelta(seconds=60), Decimal(0), "key-1")
    records = [make_record(make_intent("r1"), container_time=time), make_record(make_intent("last"))]

    async def write() -> None:
        async with open_ledger(store.make, records):
            pass

    asyncio.run(write())
    prune(store, tmp_path / "archive")
    with contextlib.closing(make_backend(store.address).connect(create=False)) as db:
        # The life of a container is forgotten after 31 days.
        db.run("DELETE FROM containers")
        used = db.fetch_rows("SELECT used_s FROM allowances")
        asyncio.run(write())

        assert db.fetch_rows("SELECT used_s FROM allowances") == used == [("60",)]
    assert list_ids(store) == ["last"]


def test_record_that_is_written_while_it_is_pruned_is_not_stored_again(postgres_address: PostgresAddress) -> None:
    store = LedgerUnderTest(postgres_address, fsync=False)
    store.write(make_intent("r1"), make_intent("last"))
    backend = make_backend(postgres_address)
    late = threading.Thread(target=store.write, args=(make_intent("r1"),))

    def is_waiting() -> bool:
        with psycopg.connect(postgres_address.url) as server:
            return bool(server.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())

    with contextlib.closing(backend.connect(create=False)) as db:
        with db.transaction():
            guard_pruned(db, backend.dialect, NEXT_DAY)
        with db.transaction():
            for statement in backend.dialect.open_guards:
                db.run(statement)
            db.fetch_rows("SELECT 1")  # the locks are held now
            late.start()
            wait_until(is_waiting, "the late writer to wait for the transaction")
            db.delete("records", "request_id", ["r1"])
            add_pruned(db, DAY, {"r1"}, set())
            for statement in backend.dialect.close_guards:
                db.run(statement)
        late.join()

    assert list_ids(store) == ["last"]
