"""Usage queries on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from tests.ledger.conftest import Make, open_ledger
from tests.ledger.sample_records import CALLER, make_intent, make_record
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.domain.errors import BadRequest
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult
from tornado_proxy.ledger.reports.usage_sums import sum_usage
from tornado_proxy.pricing.book.calculator import bill

each_database = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)

ALL = UsageFilter(project_id="project-a")


def line(item_type: str, quantity: str, amount: str | None, model: str = "gpt-5.4") -> LineItem:
    price = None if amount is None else Decimal(1)
    return LineItem(item_type, Decimal(quantity), "per_million_tokens", price, amount and Decimal(amount), model)  # type: ignore[arg-type]


def cost(*items: LineItem) -> Cost:
    return bill(items, Decimal("0.05"))


def read_usage(make: Make, records: Sequence[RequestRecord], *queries: UsageQuery) -> list[UsageResult]:
    async def run() -> list[UsageResult]:
        async with open_ledger(make, records) as opened:
            return [await opened.usage(query) for query in queries]

    return asyncio.run(run())


def make_record_at(time: str, number: int, **members: object) -> RequestRecord:
    started = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return make_record(make_intent(f"req_{number}", started_at=started), **members)


@each_database
def test_line_items_are_summed_exactly_by_type_with_the_surcharge_as_a_type(make: Make) -> None:
    records = [
        make_record_at(
            "2026-03-02T10:00:00",
            n,
            cost=cost(line("input_tokens", "3", "0.000000000003"), line("output_tokens", "1", "0.1")),
        )
        for n in range(3)
    ]

    (result,) = read_usage(make, records, UsageQuery(ALL))

    assert [(row.provider, row.model, row.type, row.quantity, row.total, row.requests) for row in result.rows] == [
        ("openai", "gpt-5.4", "input_tokens", Decimal(9), Decimal("0.000000000009"), 3),
        # 5 % of 0.100000000003 is 0.005000000000, to twelve places, three times.
        ("openai", "gpt-5.4", "llm_proxy_surcharge", Decimal("0.300000000009"), Decimal("0.015000000000"), 3),
        ("openai", "gpt-5.4", "output_tokens", Decimal(3), Decimal("0.3"), 3),
    ]
    assert (result.requests, result.total) == (3, Decimal("0.315000000009"))


@each_database
@pytest.mark.parametrize(
    ("interval", "starts"),
    [
        (None, [None]),
        (Interval.HOUR, ["2026-03-01T23:00:00.000Z", "2026-03-02T00:00:00.000Z", "2026-03-31T10:00:00.000Z"]),
        (Interval.DAY, ["2026-03-01T00:00:00.000Z", "2026-03-02T00:00:00.000Z", "2026-03-31T00:00:00.000Z"]),
        # The first of March 2026 is a Sunday.
        (Interval.WEEK, ["2026-02-23T00:00:00.000Z", "2026-03-02T00:00:00.000Z", "2026-03-30T00:00:00.000Z"]),
        (Interval.MONTH, ["2026-03-01T00:00:00.000Z"]),
    ],
)
def test_interval_begins_at_midnight_utc_and_a_week_on_monday(
    make: Make, interval: Interval | None, starts: list[str | None]
) -> None:
    times = ("2026-03-01T23:59:59.999", "2026-03-02T00:00:00", "2026-03-31T10:00:00")
    records = [
        make_record_at(time, n, cost=bill([line("input_tokens", "1", "1")], Decimal(0))) for n, time in enumerate(times)
    ]

    (result,) = read_usage(make, records, UsageQuery(ALL, interval=interval, type="input_tokens"))

    assert [row.start for row in result.rows] == starts


@each_database
def test_interval_ends_at_the_start_of_the_next(make: Make) -> None:
    records = [make_record_at("2026-02-10T10:00:00", 1)]

    (result,) = read_usage(make, records, UsageQuery(ALL, interval=Interval.MONTH))

    assert {(row.start, row.end) for row in result.rows} == {("2026-02-01T00:00:00.000Z", "2026-03-01T00:00:00.000Z")}


@each_database
def test_quantity_without_a_price_is_shown_beside_the_total(make: Make) -> None:
    unpriced = cost(line("input_tokens", "10", "0.5"), line("input_tokens", "7", None))
    records = [make_record_at("2026-03-02T10:00:00", 1, cost=unpriced, basis=Basis.UNSETTLED)]

    everything, result = read_usage(make, records, UsageQuery(ALL), UsageQuery(ALL, type="input_tokens"))

    (row,) = result.rows
    assert [row.type for row in everything.rows] == ["input_tokens", "llm_proxy_surcharge", "unsettled_requests"]
    assert (row.quantity, row.unpriced, row.total) == (Decimal(17), Decimal(7), Decimal("0.5"))
    assert result.unsettled == 1


@each_database
def test_request_of_unknown_cost_is_counted_without_line_items(make: Make) -> None:
    nothing = bill((), Decimal(0))
    records = [
        make_record_at("2026-03-02T10:00:00", 1, cost=nothing, basis=Basis.UNSETTLED),
        make_record_at("2026-03-02T10:00:00", 2, cost=nothing, basis=Basis.PENDING),
        make_record_at("2026-03-02T10:00:00", 3, cost=nothing, basis=Basis.FREE),
    ]

    (result,) = read_usage(make, records, UsageQuery(ALL))

    assert (result.requests, result.unsettled, result.pending) == (3, 1, 1)
    assert [(row.model, row.type, row.quantity, row.unpriced, row.total) for row in result.rows] == [
        ("gpt-5.4-2026-03-05", "pending_requests", 1, 1, 0),
        ("gpt-5.4-2026-03-05", "unsettled_requests", 1, 1, 0),
    ]


@each_database
def test_request_of_a_dead_process_is_counted_as_unsettled(make: Make) -> None:
    async def run() -> UsageResult:
        dead = make()
        await dead.open()
        await dead.begin(make_intent("req_1", annotations=(("env", "prod"),)))
        await dead.close()
        async with open_ledger(make, []) as opened:
            return await opened.usage(UsageQuery(ALL, annotations=(("env", "prod"),)))

    result = asyncio.run(run())

    assert [(row.model, row.type, row.quantity) for row in result.rows] == [("gpt-5.4", "unsettled_requests", 1)]
    assert (result.requests, result.unsettled, result.total) == (1, 1, 0)


@each_database
def test_line_items_of_several_models_are_summed_by_model(make: Make) -> None:
    two = cost(line("input_tokens", "1", "1", "claude-haiku-4-5"), line("input_tokens", "1", "4", "claude-opus-4-8"))
    records = [
        make_record_at(
            "2026-03-02T10:00:00", 1, cost=two, model=None, intent=make_intent("req_1", model_requested=None)
        )
    ]

    everything, opus = read_usage(make, records, UsageQuery(ALL), UsageQuery(ALL, model="claude-opus-4-8"))

    assert [(row.model, row.type, row.total) for row in everything.rows] == [
        (None, "llm_proxy_surcharge", Decimal("0.25")),
        ("claude-haiku-4-5", "input_tokens", Decimal(1)),
        ("claude-opus-4-8", "input_tokens", Decimal(4)),
    ]
    assert [(row.model, row.total) for row in opus.rows] == [("claude-opus-4-8", Decimal(4))]
    assert opus.total == 4


@each_database
@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.4-2026-03-05"])
def test_model_is_found_by_the_name_of_its_price_and_of_the_response(make: Make, model: str) -> None:
    (result,) = read_usage(make, [make_record_at("2026-03-02T10:00:00", 1)], UsageQuery(ALL, model=model))

    assert result.total == Decimal("0.0023625")


@each_database
def test_rows_are_grouped_by_participant_and_room(make: Make) -> None:
    callers = [replace(CALLER, participant=name, room=room) for name, room in (("ada", "lab"), ("bob", None))]
    records = [make_record(make_intent(f"req_{n}", caller=caller)) for n, caller in enumerate(callers)]
    query = UsageQuery(ALL, group_by=("participant", "room"), type="input_tokens")

    (result,) = read_usage(make, records, query)

    assert [row.group for row in result.rows] == [("ada", "lab"), ("bob", None)]


@each_database
@pytest.mark.parametrize(
    ("required", "requests"),
    [((), 2), ((("env", "prod"),), 1), ((("env", "prod"), ("team", "x")), 0), ((("env", ""),), 0)],
)
def test_annotations_select_requests(make: Make, required: tuple[tuple[str, str], ...], requests: int) -> None:
    annotations = (("env", "prod"), ("run", '"7"'))
    records = [make_record(make_intent("req_1", annotations=annotations)), make_record(make_intent("req_2"))]

    (result,) = read_usage(make, records, UsageQuery(ALL, annotations=required))

    assert result.requests == requests


def test_ledger_without_annotations_columns_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make = partial(make_ledger, path)
    read_usage(make, [make_record(make_intent("req_1"))], UsageQuery(ALL))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("DROP VIEW bills; ALTER TABLE records DROP COLUMN annotations;")
        db.executescript("ALTER TABLE intents DROP COLUMN annotations;")

    (result,) = read_usage(make, [make_record(make_intent("req_2", annotations=(("env", "prod"),)))], UsageQuery(ALL))

    assert result.requests == 2


def test_query_over_its_bounds_is_refused() -> None:
    row = ("2026-03-02T10:00:00.000Z", "openai", "gpt-5.4", "gpt-5.4", "reported", None, "[]")

    with pytest.raises(BadRequest, match="shorter time"):
        sum_usage([row] * 3, UsageQuery(ALL), Bounds(records=2, until=float("inf")))
    with pytest.raises(BadRequest, match="shorter time"):
        sum_usage([row], UsageQuery(ALL), Bounds(records=2, until=0.0))
