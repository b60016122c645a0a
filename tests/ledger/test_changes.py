"""Programs follow a ledger by positions, and miss no change, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.ledger.conftest import LedgerUnderTest, open_test_database
from tests.ledger.sample_records import COST, START, make_intent, make_record
from tornado_proxy.domain.config.ledger_address import PostgresAddress
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.record import RequestRecord, RetryFacts, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.changes import Change, Position, find_end, follow
from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.cursors import Cursor
from tornado_proxy.ledger.dialect import quote_names
from tornado_proxy.ledger.protocol import Ledger

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))

#: (kind, request id, total), as the tests compare changes.
Seen = tuple[str, object, object]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    return open_test_database(request, tmp_path)


def read_all(store: LedgerUnderTest, after: Position | None = None, limit: int = 1000) -> list[Change]:
    batches = follow(make_backend(store.address), after or Position(), limit)
    return [change for batch in batches for change in batch.changes]


def see(store: LedgerUnderTest, after: Position | None = None, limit: int = 1000) -> list[Seen]:
    found = read_all(store, after, limit)
    return [(str(change.kind), change.row["request_id"], change.row["total"]) for change in found]


def run_ledger(store: LedgerUnderTest, work: Callable[[Ledger], Awaitable[None]]) -> None:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await work(ledger)
        await ledger.close()

    asyncio.run(run())


def pending(request_id: str) -> RequestRecord:
    return make_record(make_intent(request_id), basis=Basis.PENDING, cost=FREE, object_id=f"resp_{request_id}")


def settlement(request_id: str, cost: Cost = COST) -> Settlement:
    return Settlement(request_id, "gpt-5.4", Basis.REPORTED, cost, START + timedelta(hours=1))


def given_up(request_id: str) -> Settlement:
    return replace(settlement(request_id, FREE), basis=Basis.UNSETTLED, final=False)


def write(store: LedgerUnderTest, *steps: RequestRecord | Settlement) -> None:
    async def work(ledger: Ledger) -> None:
        for step in steps:
            if isinstance(step, Settlement):
                await ledger.settle(step)
            else:
                await ledger.begin(step.intent)
                await ledger.finish(step)

    run_ledger(store, work)


def test_follower_sees_each_record_and_each_later_figure_once(store: LedgerUnderTest) -> None:
    write(store, pending("r1"), make_record(make_intent("r2")), given_up("r1"), settlement("r1"))

    assert see(store) == [
        ("record", "r1", "0"),
        ("record", "r2", "0.002362500000"),
        ("given_up", "r1", "0"),
        ("settlement", "r1", "0.002362500000"),
    ]


def test_follower_continues_after_its_position(store: LedgerUnderTest) -> None:
    write(store, pending("r1"))
    position = find_end(make_backend(store.address))
    write(store, settlement("r1"), make_record(make_intent("r2")))

    assert see(store, position) == [("record", "r2", "0.002362500000"), ("settlement", "r1", "0.002362500000")]
    assert see(store, find_end(make_backend(store.address))) == []


def test_settlement_tells_the_figures_that_it_replaces(store: LedgerUnderTest) -> None:
    write(store, pending("r1"), settlement("r1"), pending("r2"), given_up("r2"), settlement("r2"))

    replaced = [(change.row["request_id"], change.replaced) for change in read_all(store) if change.replaced]

    zero = {"subtotal": "0", "surcharge": "0", "total": "0"}
    assert replaced == [
        ("r1", {"basis": "pending", **zero}),
        ("r2", {"basis": "pending", **zero}),
        ("r2", {"basis": "unsettled", **zero}),
    ]


def test_request_that_is_given_up_after_its_settlement_is_no_change(store: LedgerUnderTest) -> None:
    write(store, pending("r1"), settlement("r1"), given_up("r1"))

    assert see(store) == [("record", "r1", "0"), ("settlement", "r1", "0.002362500000")]


def test_lost_request_is_a_change_until_it_has_a_record(store: LedgerUnderTest) -> None:
    async def begin_only(ledger: Ledger) -> None:
        await ledger.begin(make_intent("r1"))

    run_ledger(store, begin_only)
    write(store, make_record(make_intent("r2")))
    position = find_end(make_backend(store.address))

    assert see(store) == [("record", "r2", "0.002362500000"), ("lost", "r1", "0")]

    write(store, make_record(make_intent("r1")))

    assert see(store, position) == [("record", "r1", "0.002362500000")]


def test_settlement_that_precedes_its_record_follows_it(store: LedgerUnderTest) -> None:
    # A record that waits in the journal of a failed database can be written after the settlement.
    write(store, settlement("r1"))
    position = find_end(make_backend(store.address))
    assert see(store) == []

    write(store, pending("r1"), make_record(make_intent("r2")))

    assert see(store, position) == [
        ("record", "r1", "0"),
        ("settlement", "r1", "0.002362500000"),
        ("record", "r2", "0.002362500000"),
    ]


def test_small_batches_return_the_same_changes(store: LedgerUnderTest) -> None:
    requests = [pending(f"r{number}") for number in range(7)]
    write(store, *requests, *(settlement(f"r{number}") for number in (6, 0, 3)))
    whole = see(store)

    batched = see(store, limit=2)

    assert len(whole) == 10
    assert sorted(batched) == sorted(whole)
    for kind, name, total in whole[7:]:
        assert batched.index(("record", name, "0")) < batched.index((kind, name, total))


def test_change_tells_when_it_was_made(store: LedgerUnderTest) -> None:
    write(store, pending("r1"), settlement("r1"))

    assert [change.at for change in read_all(store)] == ["2026-03-02T10:00:01.123Z", "2026-03-02T11:00:00.123Z"]


def test_cursor_of_another_ledger_is_refused(store: LedgerUnderTest) -> None:
    write(store, pending("r1"))

    with pytest.raises(LedgerUnavailable, match=r"the cursor 2\.0 is after the last change 1\.0"):
        read_all(store, Position(2, 0))


def repeated(request_id: str, seconds: int) -> RequestRecord:
    retry = RetryFacts("hash-1", None)
    return make_record(make_intent(request_id, started_at=START + timedelta(seconds=seconds), retry=retry))


def test_retry_names_the_first_request_with_its_key_whichever_ends_first(store: LedgerUnderTest) -> None:
    # r2 ends, and is stored, before r1, which it repeats: the client has given r1 up.
    write(store, repeated("r2", 5), repeated("r1", 0), repeated("r3", 9), make_record(make_intent("r4")))

    assert {change.row["request_id"]: change.row["retry_of"] for change in read_all(store)} == {
        "r1": None,
        "r2": "r1",
        "r3": "r1",
        "r4": None,
    }
    assert [record["retry_of"] for record in store.records()] == [None, None, "r1", "r1"]


def test_retry_of_a_lost_request_names_it(store: LedgerUnderTest) -> None:
    async def begin_only(ledger: Ledger) -> None:
        await ledger.begin(repeated("r1", 0).intent)

    run_ledger(store, begin_only)
    write(store, repeated("r2", 5))

    assert {record["request_id"]: record["retry_of"] for record in store.records()} == {"r1": None, "r2": "r1"}


@pytest.mark.parametrize("text", ["", "1", "1.x", "-1.2", "1.2.3", "1.2\n", "\u0661.\u0662"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no cursor; use 0\.0 for the beginning"):
        Position.parse(text)


@contextlib.contextmanager
def connect(address: PostgresAddress) -> Iterator[psycopg.Connection]:
    with contextlib.closing(psycopg.connect(address.url, autocommit=True)) as db:
        db.execute("SET search_path = tornado_proxy")
        yield db


def test_record_that_commits_late_is_not_missed(postgres_address: PostgresAddress) -> None:
    """Two transactions of a version that announces no writers draw their numbers, and the second one commits first."""
    store = LedgerUnderTest(postgres_address, fsync=False)
    write(store, make_record(make_intent("r0")))
    rest = quote_names(RECORD_COLUMNS[1:])
    copy = f"INSERT INTO records (request_id, {rest}) SELECT %s, {rest} FROM records WHERE request_id = 'r0'"  # noqa: S608
    found: list[Position] = []
    with connect(postgres_address) as early, connect(postgres_address) as late:
        for db, name in ((early, "r1"), (late, "r2")):
            db.execute("BEGIN")
            db.execute(copy.encode(), (name,))
        late.execute("COMMIT")
        thread = threading.Thread(target=lambda: found.append(find_end(make_backend(postgres_address))))
        thread.start()
        thread.join(0.3)
        assert found == []  # r1 has a lower number than r2, which is visible
        early.execute("COMMIT")
        thread.join(10)

    assert [change.row["request_id"] for change in read_all(store)] == ["r0", "r1", "r2"]
    assert found == [find_end(make_backend(postgres_address))]


def test_settlements_of_an_earlier_version_are_changes_after_the_migration(store: LedgerUnderTest) -> None:
    write(store, pending("r1"), pending("r2"), given_up("r2"), settlement("r1"))
    drop_changes(store)

    write(store, make_record(make_intent("r3")), settlement("r2"))

    assert see(store) == [
        ("record", "r1", "0"),
        ("record", "r2", "0"),
        ("record", "r3", "0.002362500000"),
        ("given_up", "r2", "0"),
        ("settlement", "r1", "0.002362500000"),
        ("settlement", "r2", "0.002362500000"),
    ]


def drop_changes(store: LedgerUnderTest) -> None:
    """Make the database that of an earlier version."""
    tables = {"settlements_change": "settlements", "given_up_change": "given_up", "intents_change": "intents"}
    backend = make_backend(store.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        for trigger, table in tables.items():
            db.run(f"DROP TRIGGER {trigger}" + ("" if isinstance(store.address, Path) else f" ON {table}"))
        for table in ("changes", "cursors"):
            db.run(f"DROP TABLE {table}")


def test_cursor_moves_forward_only(store: LedgerUnderTest) -> None:
    write(store, make_record(make_intent("r1")))
    backend = make_backend(store.address)
    with contextlib.closing(backend.connect(create=False)) as db:
        cursor = Cursor(db, backend.dialect, "https://example.com")

        assert cursor.read() is None
        assert cursor.move(Position(5, 3), START) == Position(5, 3)
        # Neither is before the other: changes 4 to 7 of record 5 would be missed by the larger number of each.
        assert cursor.move(Position(4, 7), START) == Position(5, 3)
        assert cursor.move(Position(5, 7), START) == Position(5, 7)
        assert cursor.read() == Position(5, 7)
        assert Cursor(db, backend.dialect, "another").read() is None
