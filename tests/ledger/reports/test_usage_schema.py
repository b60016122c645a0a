"""`tornado-proxy usage --format jsonl` prints lines that are valid by schemas/usage_record.schema.json."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.ledger.conftest import LedgerUnderTest
from tests.ledger.sample_records import COST, START, make_intent, make_record
from tests.ledger.usage_lines import SCHEMA, faults, print_usage
from tornado_proxy.domain.cost import DISCOUNT, SURCHARGE, Cost, LineItem
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome, RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.ledger.columns import PRINTED_COLUMNS
from tornado_proxy.pricing.book.calculator import bill
from tornado_proxy.pricing.book.price import UNITS

FREE = Cost((), Decimal(0), Decimal(0), Decimal(0))


def make_records() -> Iterator[RequestRecord]:
    """Yield a record of each basis, and records with unusual values."""
    yield make_record(make_intent("reported"))
    yield make_record(
        make_intent("free", model_requested=None, method="GET"), basis=Basis.FREE, cost=FREE, model=None, usage=None
    )
    yield make_record(make_intent("pending"), basis=Basis.PENDING, cost=FREE, object_id="batch_1", usage=None)
    yield make_record(make_intent("settled"), basis=Basis.PENDING, cost=FREE, object_id="batch_2", usage=None)
    yield make_record(
        make_intent("left", caller=Caller("project-a", user="eve@example.com"), session="s1"),
        basis=Basis.ESTIMATED,
        estimate_method="characters",
        outcome=Outcome.CLIENT_CLOSED,
        status=499,
        first_byte_at=None,
        usage=None,
    )
    unpriced = LineItem("web_searches", Decimal(1), "", None, None, "gpt-5.4")
    tiny = LineItem("audio_seconds", Decimal("1E-7"), "per_minute", Decimal("0.006"), Decimal("1E-11"))
    yield make_record(make_intent("unpriced"), basis=Basis.UNSETTLED, cost=bill([unpriced, tiny], Decimal("0.05")))
    yield make_record(make_intent("negative"), cost=bill([replace(tiny, amount=Decimal("-0.01"))], Decimal(0)))


@pytest.fixture
def lines(store: LedgerUnderTest) -> list[dict[str, Any]]:
    async def run() -> None:
        ledger = store.make()
        await ledger.open()
        await asyncio.gather(*(ledger.finish(record) for record in make_records()))
        await ledger.settle(
            Settlement("settled", "gpt-5.4", Basis.REPORTED, COST, START + timedelta(hours=1), '{"n":[1.5,null]}')
        )
        await ledger.begin(make_intent("crashed"))
        await ledger.close()
        again = store.make()
        await again.open()
        await again.close()

    asyncio.run(run())
    address = store.address
    return print_usage(f"sqlite:///{address}" if isinstance(address, Path) else address.url)


def test_every_line_is_valid(lines: list[dict[str, Any]]) -> None:
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


def test_schema_names_the_members_in_the_order_of_printing(lines: list[dict[str, Any]]) -> None:
    assert tuple(SCHEMA["properties"]) == tuple(SCHEMA["required"]) == PRINTED_COLUMNS
    assert all(tuple(line) == PRINTED_COLUMNS for line in lines)


def test_schema_has_every_value_of_the_enumerations() -> None:
    item = SCHEMA["$defs"]["line_item"]["properties"]

    assert SCHEMA["properties"]["basis"]["enum"] == [basis.value for basis in Basis]
    assert SCHEMA["properties"]["outcome"]["enum"] == [outcome.value for outcome in Outcome]
    assert item["type"]["enum"] == [*(meter.value for meter in Meter), DISCOUNT, SURCHARGE]
    assert item["unit"]["enum"] == [*UNITS, "usd", ""]


def test_every_member_has_a_description_and_amounts_and_times_a_unit() -> None:
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
def test_misleading_value_is_invalid(lines: list[dict[str, Any]], member: str, value: object) -> None:
    assert faults({**lines[0], member: value}) != []
