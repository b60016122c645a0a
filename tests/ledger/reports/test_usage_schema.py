"""schemas/usage_record.schema.json says what `tornado-proxy usage --format jsonl` prints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.calls import COST, START, intent, record
from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.usage_lines import SCHEMA, faults, printed
from tornado_proxy.domain.cost import SURCHARGE, Cost, LineItem, bill
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.ledger.rows import PRINTED_COLUMNS
from tornado_proxy.pricing.book.price import UNITS

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))


def records() -> Iterator[RequestRecord]:
    """One of each basis, and the odd ones."""
    yield record(intent("reported"))
    yield record(
        intent("free", model_requested=None, method="GET"), basis=Basis.FREE, cost=FREE, model=None, usage=None
    )
    yield record(intent("pending"), basis=Basis.PENDING, cost=FREE, object_id="batch_1", usage=None)
    yield record(intent("settled"), basis=Basis.PENDING, cost=FREE, object_id="batch_2", usage=None)
    yield record(
        intent("left", caller=Caller("project-a", user="eve@example.com"), session="s1"),
        basis=Basis.ESTIMATED,
        estimate_method="characters",
        outcome=Outcome.CLIENT_CLOSED,
        status=499,
        first_byte_at=None,
        usage=None,
    )
    unpriced = LineItem("web_searches", Decimal(1), "", None, None, "gpt-5.4")
    tiny = LineItem("audio_seconds", Decimal("1E-7"), "per_minute", Decimal("0.006"), Decimal("1E-11"))
    yield record(intent("unpriced"), basis=Basis.UNSETTLED, cost=bill([unpriced, tiny], Decimal("0.05")))
    yield record(intent("negative"), cost=bill([replace(tiny, amount=Decimal("-0.01"))], Decimal(0)))


@pytest.fixture
def lines(store: LedgerUnderTest) -> list[dict[str, Any]]:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await asyncio.gather(*(ledger.finish(one) for one in records()))
        await ledger.settle(
            Settlement("settled", "gpt-5.4", Basis.REPORTED, COST, START + timedelta(hours=1), '{"n":[1.5,null]}')
        )
        await ledger.begin(intent("crashed"))
        await ledger.close()
        again = store.make()
        await again.open()
        await again.close()

    asyncio.run(run())
    address = store.address
    return printed(f"sqlite:///{address}" if isinstance(address, Path) else address.url)


def test_every_line_keeps_to_the_schema(lines: list[dict[str, Any]]) -> None:
    assert {line["request_id"]: faults(line) for line in lines} == {
        "reported": [],
        "free": [],
        "pending": [],
        "settled": [],
        "left": [],
        "unpriced": [],
        "negative": [],
        "crashed": [],
    }
    basis = {line["request_id"]: line["basis"] for line in lines}
    assert (basis["settled"], basis["pending"], basis["crashed"]) == ("reported", "pending", "unsettled")
    assert next(line["usage"] for line in lines if line["request_id"] == "settled") == {"n": [1.5, None]}


def test_the_schema_names_the_members_in_the_order_they_are_printed(lines: list[dict[str, Any]]) -> None:
    assert tuple(SCHEMA["properties"]) == tuple(SCHEMA["required"]) == PRINTED_COLUMNS
    assert all(tuple(line) == PRINTED_COLUMNS for line in lines)


def test_the_schema_knows_every_word_of_the_program() -> None:
    item = SCHEMA["$defs"]["line_item"]["properties"]

    assert SCHEMA["properties"]["basis"]["enum"] == [one.value for one in Basis]
    assert SCHEMA["properties"]["outcome"]["enum"] == [one.value for one in Outcome]
    assert item["type"]["enum"] == [*(one.value for one in Meter), SURCHARGE]
    assert item["unit"]["enum"] == [*UNITS, "usd", ""]


def test_every_member_is_described_and_money_and_times_have_their_unit() -> None:
    members = {**SCHEMA["properties"], **SCHEMA["$defs"]["line_item"]["properties"]}

    assert [name for name, rule in members.items() if not rule["description"].endswith(".")] == []
    for name in ("subtotal", "surcharge", "total", "unit_price", "amount"):
        assert "US dollars" in members[name]["description"]
    for name in ("started_at", "first_byte_at", "ended_at"):
        assert "RFC 3339, UTC, milliseconds" in members[name]["description"]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        pytest.param("total", 0.5, id="a number for money"),
        pytest.param("total", "1E-12", id="an exponent"),
        pytest.param("basis", "guessed", id="an unknown basis"),
        pytest.param("started_at", "2026-03-02T10:00:00Z", id="no milliseconds"),
        pytest.param("started_at", None, id="no start"),
        pytest.param("line_items", [{"type": "input_tokens"}], id="a line item without an amount"),
        pytest.param("note", "x", id="an unknown member"),
    ],
)
def test_what_would_mislead_a_reader_breaks_the_schema(lines: list[dict[str, Any]], member: str, value: object) -> None:
    assert faults({**lines[0], member: value}) != []
