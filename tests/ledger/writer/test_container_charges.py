"""The time of containers is charged with the record of the use that caused it: once, whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.ledger.conftest import LedgerUnderTest, Make, open_test_database
from tests.ledger.sample_records import make_intent, make_record
from tornado_proxy.domain.container import ContainerPrice, ContainerTime, PricedUse
from tornado_proxy.domain.cost import LineItem
from tornado_proxy.domain.record import RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.ledger.columns import RECORD_COLUMNS
from tornado_proxy.ledger.reports.records_query import UsageFilter, read_records
from tornado_proxy.pricing.book.calculator import bill

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
RATE = Decimal("0.05")

#: 4 GB at 0.006 USD a minute, at least five.
PRICE = ContainerPrice(
    "gpt-5.4",
    "per_minute",
    Decimal("0.006"),
    Decimal(60),
    "h1",
    (("memory_limit", "4g"),),
    minimum_s=Decimal(300),
    step_s=Decimal(60),
)
#: 0.05 USD an hour, at least five minutes, 900 seconds a month free.
WITH_ALLOWANCE = ContainerPrice(
    "claude-opus-4-8",
    "per_hour",
    Decimal("0.05"),
    Decimal(3600),
    "h2",
    minimum_s=Decimal(300),
    free_per_month_s=Decimal(900),
    free_price_hash="h3",
)
TOKENS = LineItem("input_tokens", Decimal(1000), "per_million_tokens", Decimal(1), Decimal("0.001"), "gpt-5.4", "h0")
#: The time that a record assumes before the ledger knows other uses.
ASSUMED = LineItem("container_seconds", Decimal(300), "per_minute", Decimal("0.006"), Decimal("0.03"), "gpt-5.4", "h1")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    """Return each database in turn."""
    return open_test_database(request, tmp_path)


@pytest.fixture
def records(store: LedgerUnderTest) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads all records with all columns."""
    return lambda: [dict(row) for row in read_records(make_backend(store.address), UsageFilter(), RECORD_COLUMNS)]


def used(
    began: float,
    ended: float,
    *names: str,
    price: ContainerPrice | None = PRICE,
    account: str = "key-1",
    day: datetime = NOON,
) -> ContainerTime:
    """Return the containers of a request that began and ended so many seconds after noon."""
    uses = tuple(PricedUse(name, price, f"note on {name}") for name in names or ("cntr_1",))
    begin, end = (day + timedelta(seconds=seconds) for seconds in (began, ended))
    return ContainerTime(uses, "openai", "project-a", begin, end, RATE, account)


def record_of(request_id: str, time: ContainerTime, *items: LineItem) -> RequestRecord:
    notes = tuple(use.note for use in time.uses)
    cost = bill(items or (TOKENS,), RATE)
    intent = make_intent(request_id, started_at=time.began_at)
    return make_record(intent, basis=Basis.ESTIMATED, cost=cost, faults=notes, container_time=time)


def write(make: Make, records: Iterable[RequestRecord]) -> None:
    """Store records, each committed before the next."""

    async def run() -> None:
        ledger = make()
        await ledger.open()
        for record in records:
            await ledger.finish(record)
        await ledger.close()

    asyncio.run(run())


def time_items(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return type, quantity and amount of the container time in a stored row."""
    items = json.loads(row["line_items"])
    return [(item["type"], item["quantity"], item["amount"]) for item in items if "container" in item["type"]]


def test_first_use_is_charged_the_minimum_in_place_of_the_assumed_item(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    write(make, [record_of("r1", used(0, 10), TOKENS, ASSUMED)])

    (row,) = records()
    assert time_items(row) == [("container_seconds", "300", "0.030000000000")]
    # Tokens 0.001, five minutes at 0.006; 5 % on top: 0.031 + 0.00155.
    assert [Decimal(row[name]) for name in ("subtotal", "surcharge", "total")] == [
        Decimal("0.031"),
        Decimal("0.00155"),
        Decimal("0.03255"),
    ]
    assert [item["type"] for item in json.loads(row["line_items"])] == [
        "input_tokens",
        "container_seconds",
        "llm_proxy_surcharge",
    ]
    (fault,) = json.loads(row["faults"])
    assert fault.startswith("container cntr_1: charged for 300 s of 300 s;")


def test_later_use_is_charged_for_the_time_that_it_adds(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    write(make, [record_of("r1", used(0, 10), TOKENS, ASSUMED), record_of("r2", used(730, 740))])

    first, second = records()
    assert time_items(first) == [("container_seconds", "300", "0.030000000000")]
    # 730 - 10 = 720 seconds are certain, 300 are charged: 420 seconds, seven minutes at 0.006.
    assert time_items(second) == [("container_seconds", "420", "0.042000000000")]
    assert Decimal(second["subtotal"]) == Decimal("0.043")
    assert json.loads(second["faults"])[0].startswith("container cntr_1: charged for 420 s of 720 s;")


def test_use_within_the_charged_time_costs_nothing_even_if_its_record_assumed_the_minimum(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    write(make, [record_of("r1", used(0, 10)), record_of("r2", used(100, 110), TOKENS, ASSUMED)])

    _, second = records()
    assert time_items(second) == []
    assert Decimal(second["subtotal"]) == Decimal("0.001")
    assert json.loads(second["faults"]) == [
        "container cntr_1: no further time is charged; earlier requests were charged for 300 s"
    ]


def test_life_of_a_container_survives_a_restart(make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
    write(make, [record_of("r1", used(0, 10))])
    write(make, [record_of("r2", used(730, 740))])

    assert [time_items(row)[0][1] for row in records()] == ["300", "420"]


def test_several_processes_charge_a_container_once(make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
    async def run() -> None:
        ledgers = [make() for _ in range(3)]
        for ledger in ledgers:
            await ledger.open()
        writes = [
            ledger.finish(record_of(f"r{number}-{n}", used(60 * number, 60 * number + 1, "cntr_2", "cntr_1")))
            for number in range(20)
            for n, ledger in enumerate(ledgers)
        ]
        await asyncio.gather(*writes)
        for ledger in ledgers:
            await ledger.close()

    asyncio.run(run())

    rows = records()
    seconds = [Decimal(quantity) for row in rows for _, quantity, _ in time_items(row)]
    # From second 1 to 19 x 60 = 1140: 1139, in whole minutes 1140, for each of two containers.
    assert (len(rows), sum(seconds)) == (60, 2280)


def test_record_that_is_written_twice_is_charged_once(make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
    once = record_of("r1", used(0, 10))
    write(make, [once, once, record_of("r2", used(400, 410))])

    # 400 - 10 = 390 seconds, in whole minutes 420: two more than the minimum.
    assert [time_items(row)[0][1] for row in records()] == ["300", "120"]


def test_record_of_a_killed_process_is_charged_at_the_next_start(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    async def run() -> None:
        dead = make()
        await dead.open()
        await dead.begin(make_intent("r1", started_at=NOON))
        dead.write_ahead(record_of("r1", used(0, 10)))
        await dead.close()  # finish() was not called: the record is in the intent log only

    asyncio.run(run())
    write(make, [record_of("r2", used(400, 410))])

    assert [time_items(row) for row in records()] == [
        [("container_seconds", "300", "0.030000000000")],
        [("container_seconds", "120", "0.012000000000")],
    ]


def test_settlement_is_charged_once(make: Make, records: Callable[[], list[dict[str, Any]]]) -> None:
    async def run() -> None:
        ledger = make()
        await ledger.open()
        pending = make_record(
            make_intent("r1", started_at=NOON), basis=Basis.PENDING, cost=bill((), RATE), usage=None, object_id="resp_1"
        )
        await ledger.finish(pending)
        settlement = Settlement(
            "r1", "gpt-5.4", Basis.ESTIMATED, bill([TOKENS], RATE), NOON, container_time=used(0, 60)
        )
        await ledger.settle(settlement)
        await ledger.settle(settlement)
        await ledger.finish(record_of("r2", used(600, 610)))
        await ledger.close()

    asyncio.run(run())

    # The container lived from second 60 to 600: 540 seconds.
    assert [(row["request_id"], time_items(row)[0][1]) for row in records()] == [("r1", "300"), ("r2", "240")]


def test_container_that_no_response_created_is_not_charged_and_the_record_says_so(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    write(make, [record_of("r1", used(0, 10, price=None)), record_of("r2", used(900, 910, price=None))])

    assert [time_items(row) for row in records()] == [[], []]
    assert {fault for row in records() for fault in json.loads(row["faults"])} == {
        "container cntr_1: not created by a response that this ledger has; the time is not charged"
    }


def test_free_time_of_a_month_is_used_up_before_time_is_charged(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    spans = [
        record_of("r1", used(0, 10, "c1", "c2", price=WITH_ALLOWANCE)),
        record_of("r2", used(0, 10, "c3", "c4", price=WITH_ALLOWANCE)),
        record_of("r3", used(0, 10, "c5", price=WITH_ALLOWANCE, account="key-2")),
        record_of("r4", used(0, 10, "c6", price=WITH_ALLOWANCE, day=datetime(2026, 12, 1, tzinfo=UTC))),
    ]
    write(make, spans)

    found = {row["request_id"]: time_items(row) for row in records()}
    free = ("free_container_seconds", "300", "0.000000000000")
    # Of 900 free seconds r1 uses 600 and r2 300; its second container costs 300 / 3600 x 0.05.
    assert found == {
        "r1": [free, free],
        "r2": [free, ("container_seconds", "300", "0.004166666667")],
        "r3": [free],
        "r4": [free],
    }


def test_many_containers_of_one_request_share_a_line_item_and_a_fault(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    names = [f"c{number}" for number in range(30)]
    uses = tuple(PricedUse(name, PRICE, "30 containers ran code") for name in names)
    write(make, [record_of("r1", replace(used(0, 10), uses=uses))])

    (row,) = records()
    # 30 times five minutes at 0.006.
    assert time_items(row) == [("container_seconds", "9000", "0.900000000000")]
    assert {fault.partition(";")[0] for fault in json.loads(row["faults"])} == {
        "30 containers: charged for 9000 s of 9000 s"
    }


def test_containers_are_forgotten_a_month_after_their_last_use(make: Make, store: LedgerUnderTest) -> None:
    now = datetime.now(UTC)
    write(
        make,
        [
            record_of("r1", used(0, 10, "old", day=now - timedelta(days=32))),
            record_of("r2", used(0, 10, "new", day=now - timedelta(days=30))),
        ],
    )
    write(make, [])  # a start forgets them

    with make_backend(store.address).read() as read:
        kept = [row[0] for row in read("SELECT container_id FROM containers", ())]
    assert kept == ["new"]


def test_ids_that_a_database_cannot_hold_are_stored_with_question_marks(
    make: Make, records: Callable[[], list[dict[str, Any]]]
) -> None:
    unstorable = "cntr_\0_\ud800"
    write(make, [structs.replace(record_of("r1", used(0, 10, unstorable)), objects=(unstorable,))])

    assert [time_items(row)[0][1] for row in records()] == ["300"]


def test_ledger_of_an_earlier_version_gets_the_tables(
    make: Make, store: LedgerUnderTest, records: Callable[[], list[dict[str, Any]]]
) -> None:
    write(make, [])
    backend = make_backend(store.address)
    db = backend.connect(create=False)
    db.run_script("DROP TABLE containers; DROP TABLE allowances;")
    db.close()

    write(make, [record_of("r1", used(0, 10))])

    assert [time_items(row)[0][1] for row in records()] == ["300"]
