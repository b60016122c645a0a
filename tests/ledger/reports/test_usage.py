"""Questions about usage, put to ledgers in either store."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from tests.ledger.calls import CALLER, intent, record
from tornado_proxy.domain.cost import Cost, LineItem, bill
from tornado_proxy.domain.errors import BadRequest, LedgerUnavailable
from tornado_proxy.domain.record import RequestRecord
from tornado_proxy.domain.usage import Basis
from tornado_proxy.ledger.backends import make_ledger
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.ledger.reports.intervals import Interval
from tornado_proxy.ledger.reports.records_query import UsageFilter
from tornado_proxy.ledger.reports.usage import Bounds, UsageQuery, UsageResult, sum_usage

Make = Callable[[], Ledger]

either_store = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)

ALL = UsageFilter(project_id="project-a")


def line(kind: str, quantity: str, amount: str | None, model: str = "gpt-5.4") -> LineItem:
    price = None if amount is None else Decimal(1)
    return LineItem(kind, Decimal(quantity), "per_million_tokens", price, amount and Decimal(amount), model)  # type: ignore[arg-type]


def cost(*items: LineItem) -> Cost:
    return bill(items, Decimal("0.05"))


@contextlib.asynccontextmanager
async def ledger(make: Make, records: Sequence[RequestRecord]) -> AsyncIterator[Ledger]:
    opened = make()
    await opened.open()
    try:
        for one in records:
            await opened.begin(one.intent)
        await asyncio.gather(*(opened.finish(one) for one in records))
        yield opened
    finally:
        await opened.close()


def ask(make: Make, records: Sequence[RequestRecord], *questions: UsageQuery) -> list[UsageResult]:
    async def run() -> list[UsageResult]:
        async with ledger(make, records) as opened:
            return [await opened.usage(question) for question in questions]

    return asyncio.run(run())


def at(moment: str, number: int, **members: object) -> RequestRecord:
    started = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return record(intent(f"req_{number}", started_at=started), **members)


@either_store
def test_line_items_of_a_kind_are_summed_exactly_with_the_surcharge_as_a_kind_of_its_own(make: Make) -> None:
    records = [
        at(
            "2026-03-02T10:00:00",
            n,
            cost=cost(line("input_tokens", "3", "0.000000000003"), line("output_tokens", "1", "0.1")),
        )
        for n in range(3)
    ]

    (answer,) = ask(make, records, UsageQuery(ALL))

    assert [(row.provider, row.model, row.type, row.quantity, row.total, row.requests) for row in answer.rows] == [
        ("openai", "gpt-5.4", "input_tokens", Decimal(9), Decimal("0.000000000009"), 3),
        # 5 % of 0.100000000003 is 0.005000000000, to twelve places, three times.
        ("openai", "gpt-5.4", "llm_proxy_surcharge", Decimal("0.300000000009"), Decimal("0.015000000000"), 3),
        ("openai", "gpt-5.4", "output_tokens", Decimal(3), Decimal("0.3"), 3),
    ]
    assert (answer.requests, answer.total) == (3, Decimal("0.315000000009"))


@either_store
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
def test_intervals_begin_at_midnight_utc_weeks_on_monday(
    make: Make, interval: Interval | None, starts: list[str | None]
) -> None:
    moments = ("2026-03-01T23:59:59.999", "2026-03-02T00:00:00", "2026-03-31T10:00:00")
    records = [
        at(moment, n, cost=bill([line("input_tokens", "1", "1")], Decimal(0))) for n, moment in enumerate(moments)
    ]

    (answer,) = ask(make, records, UsageQuery(ALL, interval=interval, type="input_tokens"))

    assert [row.start for row in answer.rows] == starts


@either_store
def test_an_interval_ends_where_the_next_begins(make: Make) -> None:
    records = [at("2026-02-10T10:00:00", 1)]

    (answer,) = ask(make, records, UsageQuery(ALL, interval=Interval.MONTH))

    assert {(row.start, row.end) for row in answer.rows} == {("2026-02-01T00:00:00.000Z", "2026-03-01T00:00:00.000Z")}


@either_store
def test_what_has_no_price_is_shown_beside_the_total(make: Make) -> None:
    unpriced = cost(line("input_tokens", "10", "0.5"), line("input_tokens", "7", None))
    records = [at("2026-03-02T10:00:00", 1, cost=unpriced, basis=Basis.UNSETTLED)]

    everything, answer = ask(make, records, UsageQuery(ALL), UsageQuery(ALL, type="input_tokens"))

    (row,) = answer.rows
    assert [one.type for one in everything.rows] == ["input_tokens", "llm_proxy_surcharge", "unsettled_requests"]
    assert (row.quantity, row.unpriced, row.total) == (Decimal(17), Decimal(7), Decimal("0.5"))
    assert answer.unsettled == 1


@either_store
def test_requests_of_unknown_cost_are_counted_though_they_have_no_line(make: Make) -> None:
    nothing = bill((), Decimal(0))
    records = [
        at("2026-03-02T10:00:00", 1, cost=nothing, basis=Basis.UNSETTLED),
        at("2026-03-02T10:00:00", 2, cost=nothing, basis=Basis.PENDING),
        at("2026-03-02T10:00:00", 3, cost=nothing, basis=Basis.FREE),
    ]

    (answer,) = ask(make, records, UsageQuery(ALL))

    assert (answer.requests, answer.unsettled, answer.pending) == (3, 1, 1)
    assert [(row.model, row.type, row.quantity, row.unpriced, row.total) for row in answer.rows] == [
        ("gpt-5.4-2026-03-05", "pending_requests", 1, 1, 0),
        ("gpt-5.4-2026-03-05", "unsettled_requests", 1, 1, 0),
    ]


@either_store
def test_a_request_whose_process_died_is_counted_as_unsettled(make: Make) -> None:
    async def run() -> UsageResult:
        dead = make()
        await dead.open()
        await dead.begin(intent("req_1", annotations=(("env", "prod"),)))
        await dead.close()
        async with ledger(make, []) as opened:
            return await opened.usage(UsageQuery(ALL, annotations=(("env", "prod"),)))

    answer = asyncio.run(run())

    assert [(row.model, row.type, row.quantity) for row in answer.rows] == [("gpt-5.4", "unsettled_requests", 1)]
    assert (answer.requests, answer.unsettled, answer.total) == (1, 1, 0)


@either_store
def test_a_bill_of_several_models_is_taken_apart_by_model(make: Make) -> None:
    two = cost(line("input_tokens", "1", "1", "claude-haiku-4-5"), line("input_tokens", "1", "4", "claude-opus-4-8"))
    records = [at("2026-03-02T10:00:00", 1, cost=two, model=None, intent=intent("req_1", model_requested=None))]

    everything, one = ask(make, records, UsageQuery(ALL), UsageQuery(ALL, model="claude-opus-4-8"))

    assert [(row.model, row.type, row.total) for row in everything.rows] == [
        (None, "llm_proxy_surcharge", Decimal("0.25")),
        ("claude-haiku-4-5", "input_tokens", Decimal(1)),
        ("claude-opus-4-8", "input_tokens", Decimal(4)),
    ]
    assert [(row.model, row.total) for row in one.rows] == [("claude-opus-4-8", Decimal(4))]
    assert one.total == 4


@either_store
@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.4-2026-03-05"])
def test_a_model_is_found_under_the_name_of_its_price_and_the_one_of_the_answer(make: Make, model: str) -> None:
    (answer,) = ask(make, [at("2026-03-02T10:00:00", 1)], UsageQuery(ALL, model=model))

    assert answer.total == Decimal("0.0023625")


@either_store
def test_rows_are_grouped_by_who_and_where(make: Make) -> None:
    callers = [replace(CALLER, participant=name, room=room) for name, room in (("ada", "lab"), ("bob", None))]
    records = [record(intent(f"req_{n}", caller=caller)) for n, caller in enumerate(callers)]
    question = UsageQuery(ALL, group_by=("participant", "room"), type="input_tokens")

    (answer,) = ask(make, records, question)

    assert [row.group for row in answer.rows] == [("ada", "lab"), ("bob", None)]


@either_store
@pytest.mark.parametrize(
    ("asked", "requests"),
    [((), 2), ((("env", "prod"),), 1), ((("env", "prod"), ("team", "x")), 0), ((("env", ""),), 0)],
)
def test_usage_is_asked_for_by_what_clients_said_of_their_calls(
    make: Make, asked: tuple[tuple[str, str], ...], requests: int
) -> None:
    said = (("env", "prod"), ("run", '"7"'))
    records = [record(intent("req_1", annotations=said)), record(intent("req_2"))]

    (answer,) = ask(make, records, UsageQuery(ALL, annotations=asked))

    assert answer.requests == requests


def test_a_ledger_of_before_annotations_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make = partial(make_ledger, path)
    ask(make, [record(intent("req_1"))], UsageQuery(ALL))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("DROP VIEW bills; ALTER TABLE records DROP COLUMN annotations;")
        db.executescript("ALTER TABLE intents DROP COLUMN annotations;")

    (answer,) = ask(make, [record(intent("req_2", annotations=(("env", "prod"),)))], UsageQuery(ALL))

    assert answer.requests == 2


def test_a_question_over_its_bounds_is_refused() -> None:
    row = ("2026-03-02T10:00:00.000Z", "openai", "gpt-5.4", "gpt-5.4", "reported", None, "[]")

    with pytest.raises(BadRequest, match="shorter time"):
        sum_usage([row] * 3, UsageQuery(ALL), Bounds(records=2, until=float("inf")))
    with pytest.raises(BadRequest, match="shorter time"):
        sum_usage([row], UsageQuery(ALL), Bounds(records=2, until=0.0))


def test_a_file_that_is_gone_is_a_ledger_that_cannot_be_read(tmp_path: Path) -> None:
    async def run() -> None:
        await make_ledger(tmp_path / "nowhere" / "ledger.db").usage(UsageQuery(ALL))

    with pytest.raises(LedgerUnavailable, match="there is no ledger"):
        asyncio.run(run())


@either_store
def test_the_event_loop_turns_while_usage_is_read(make: Make) -> None:
    records = [record(intent(f"req_{number}")) for number in range(3000)]

    async def run() -> tuple[int, UsageResult]:
        async with ledger(make, records) as opened:
            turns = 0
            asking = asyncio.create_task(opened.usage(UsageQuery(ALL)))
            while not asking.done():
                turns += 1
                await asyncio.sleep(0)
            return turns, asking.result()

    turns, answer = asyncio.run(run())

    assert answer.requests == 3000
    assert turns > 20


@either_store
def test_more_questions_than_can_wait_are_turned_away(make: Make) -> None:
    async def run() -> list[UsageResult | BaseException]:
        async with ledger(make, [record(intent("req_1"))]) as opened:
            questions = [opened.usage(UsageQuery(ALL)) for _ in range(40)]
            return await asyncio.gather(*questions, return_exceptions=True)

    answers = asyncio.run(run())

    assert [type(one).__name__ for one in answers] == ["UsageResult"] * 32 + ["Overloaded"] * 8


@either_store
def test_a_question_after_the_end_is_refused_and_none_keeps_the_end_waiting(make: Make) -> None:
    async def run() -> None:
        async with ledger(make, []) as opened:
            pass
        await opened.usage(UsageQuery(ALL))

    with pytest.raises(LedgerUnavailable, match="closed"):
        asyncio.run(run())
