"""Sums are corrected in short transactions while servers write records and add them, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.reports.test_rollup_query import add_to_sums, fill
from tests.ledger.sample_records import make_intent, make_record
from tests.ledger.sums.test_verification import RECORDS, connect, find_differences, run
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.ledger import writer_turns
from tornado_proxy.ledger.archives.archiving import archive_records
from tornado_proxy.ledger.archives.pruning import prune_records
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.database import Database
from tornado_proxy.ledger.sums import rebuild as sums_rebuild
from tornado_proxy.ledger.sums.rebuild import Rebuilt, rebuild
from tornado_proxy.ledger.sums.rollups import roll_up


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


def rebuild_all(store: LedgerUnderTest, db: Database) -> Rebuilt:
    return rebuild(db, make_backend(store.address).dialect)


def make_day(name: str, number: int) -> list[RequestRecord]:
    """Return records of one day, each of a session of its own, so that each has a sum of its own."""
    start = datetime(2026, 3, 2, 10, tzinfo=UTC)
    ids = [f"{name}_{each}" for each in range(number)]
    return [make_record(make_intent(each, started_at=start, session=each)) for each in ids]


@contextlib.contextmanager
def adding_records(store: LedgerUnderTest) -> Iterator[list[str]]:
    """Write records and add them to the sums, one after the other, as a server does; yield their ids."""
    added: list[str] = []
    is_over = threading.Event()

    async def add() -> None:
        ledger = store.make()
        await ledger.open()
        with connect(store) as db:
            while not is_over.is_set():
                (record,) = make_day(f"later{len(added)}", 1)
                await ledger.finish(record)
                # SQLite waits for the lock for two seconds; a refusal ends the test.
                while roll_up(db, make_backend(store.address).dialect):
                    pass
                added.append(record.intent.request_id)
        await ledger.close()

    writer = threading.Thread(target=asyncio.run, args=(add(),))
    writer.start()
    try:
        yield added
    finally:
        is_over.set()
        writer.join()


def test_records_that_are_written_and_added_meanwhile_are_in_the_sums_once(
    store: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums_rebuild, "_PAGE_SIZE", 3)
    fill(store, make_day("first", 20), [])
    add_to_sums(store)

    meanwhile = 0
    with connect(store) as db, adding_records(store) as added:
        while meanwhile < 5:
            with db.transaction():
                db.run("UPDATE rollups SET requests = requests + 1")
                db.run("DELETE FROM attribute_sums WHERE value = 'first_7'")
                db.run("UPDATE item_sums SET quantity_0 = 5")
            before = len(added)
            rebuild_all(store, db)
            meanwhile += len(added) - before

    add_to_sums(store)
    assert find_differences(store) == []
    with connect(store) as db:
        assert db.fetch_rows("SELECT requests FROM rollups WHERE span = 'day_all'") == [(20 + len(added),)]


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_right_sums_are_not_written(store: LedgerUnderTest, batch_size: int) -> None:
    records = [*RECORDS, *(with_amount(record, "0.0000006") for record in make_day("small", 4))]
    fill(store, records, [])

    with connect(store) as db:
        while roll_up(db, make_backend(store.address).dialect, batch_size):
            pass
        assert rebuild_all(store, db).corrected == 0


def with_amount(record: RequestRecord, amount: str) -> RequestRecord:
    """Return a record whose line items cost a part of a micro-dollar each, which is carried when records are added."""
    items = tuple(structs.replace(item, amount=Decimal(amount)) for item in record.cost.line_items)
    return structs.replace(record, cost=structs.replace(record.cost, line_items=items))


@pytest.mark.parametrize(("number", "length"), [(252, 899), (253, None)])
def test_numbers_of_many_records_are_not_stored_whether_they_are_added_together_or_not(
    tmp_path: Path, number: int, length: int | None
) -> None:
    """1 to 252, with commas between them, have 899 characters."""
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    start = datetime(2026, 3, 2, 10, tzinfo=UTC)
    fill(store, [make_record(make_intent(f"r{each}", started_at=start)) for each in range(number)], [])

    with connect(store) as db:
        while roll_up(db, make_backend(store.address).dialect, 100):
            pass
        assert rebuild_all(store, db).corrected == 0
        assert db.fetch_rows("SELECT length(seqs) FROM rollups WHERE span = 'hour'") == [(length,)]


def test_numbers_of_records_that_an_earlier_version_did_not_store_are_added(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)

    with connect(store) as db:
        db.run("UPDATE rollups SET seqs = NULL")
        assert rebuild_all(store, db).corrected == 2
        rows = db.fetch_rows("SELECT seqs FROM rollups WHERE span = 'hour' ORDER BY start")

    assert rows == [("1,2",), ("3",)]


def test_sums_of_records_that_are_pruned_meanwhile_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LedgerUnderTest(tmp_path / "ledger.db", fsync=False)
    days = [make_record(make_intent(f"r{day}", started_at=datetime(2026, 3, day, 7, tzinfo=UTC))) for day in (2, 3, 4)]
    store.write(*(record.intent for record in days))
    add_to_sums(store)
    backend = make_backend(store.address)
    archive_records(backend, "2026-03-04", tmp_path / "archive", lambda _: None)
    pruned: list[int] = []

    def prune(_: float) -> None:
        """Prune at the first pause, when the days are listed."""
        if not pruned:
            pruned.append(0)
            pruned[0] = prune_records(backend, "2026-03-04", tmp_path / "archive").removed

    with connect(store) as db:
        sums = db.fetch_rows("SELECT * FROM rollups ORDER BY span, start")
        monkeypatch.setattr(writer_turns.time, "sleep", prune)
        rebuild_all(store, db)

        assert pruned == [2]
        assert db.fetch_rows("SELECT * FROM rollups ORDER BY span, start") == sums


def test_command_says_how_many_sums_were_wrong_and_how_long_servers_waited(store: LedgerUnderTest) -> None:
    fill(store, RECORDS, [])
    add_to_sums(store)
    with connect(store) as db:
        db.run("UPDATE rollups SET requests = 5 WHERE span IN ('day', 'hour')")

    lines = run(store, "rollup", "--rebuild").stdout.splitlines()

    assert lines[0] == "ok: 8 sums"
    assert lines[1].startswith("wrong sums: 4; servers waited for ")
    assert run(store, "verify").exit_code == 0
