"""Intents, records and line items become rows of text, and come back from files."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.ledger.sample_records import COST, make_intent, make_record
from tornado_proxy.domain.attribution import ATTRIBUTION_FIELDS, Attribution
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.record import RetryFacts
from tornado_proxy.ledger.columns import (
    INTENT_COLUMNS,
    OBJECT_COLUMNS,
    RECORD_COLUMNS,
    SETTLED_COLUMNS,
    RecordRow,
    SettlementRow,
)
from tornado_proxy.ledger.rows import (
    decode_row,
    list_objects,
    make_intent_row,
    make_record_row,
    make_storable_row,
    read_line_items,
)


def test_rows_have_every_column() -> None:
    others = ("objects", "key_fingerprint", "key_owner", "bound_total", "bound_subtotal", "container_time")

    assert set(RecordRow.__struct_fields__) == {*RECORD_COLUMNS, *others}
    assert set(INTENT_COLUMNS) < {*RECORD_COLUMNS, *others}
    assert {*SETTLED_COLUMNS, "settled_at"} < set(SettlementRow.__struct_fields__)


def test_row_has_each_statement_of_the_client_in_its_column() -> None:
    stated = Attribution(*(f"the {name}" for name in ATTRIBUTION_FIELDS))

    row = make_intent_row(make_intent("r1", attribution=stated, retry=RetryFacts("hash", "2")))

    assert [getattr(row, name) for name in ATTRIBUTION_FIELDS] == [f"the {name}" for name in ATTRIBUTION_FIELDS]
    assert (row.idempotency_hash, row.retry_count, row.bound_total) == ("hash", "2", None)


def test_every_created_object_belongs_to_the_project_once() -> None:
    intent = make_intent("r1", key=KeyId("main", "0123456789ab"))
    row = make_record_row(make_record(intent, object_id="resp_1", objects=("cntr_1", "resp_1")))

    owner = {"provider": "openai", "project_id": "project-a", "request_id": "r1"}
    owner |= {"provider_key": "main", "key_fingerprint": "0123456789ab", "key_owner": "server"}
    objects = [dict(zip(OBJECT_COLUMNS, values, strict=True)) for values in list_objects(row)]
    assert objects == [{"object_id": "resp_1", **owner}, {"object_id": "cntr_1", **owner}]
    assert list_objects(RecordRow("r1")) == []


def test_unstorable_ids_of_objects_become_question_marks() -> None:
    row = make_record_row(make_record(make_intent("r1"), objects=("msg_\0", "cntr_\ud800", "ok")))

    assert make_storable_row(row).objects == ("msg_?", "cntr_?", "ok")


def test_unstorable_text_becomes_question_marks() -> None:
    row = RecordRow("r1", room="x\udc80y", user="x\0y", status=5)

    assert make_storable_row(row) == RecordRow("r1", room="x?y", user="x?y", status=5)


@pytest.mark.parametrize(
    "text", [b'{"request_id":"r1","status":2', b'["r1"]', b'{"status":200}', b'{"request_id":"\xff"}']
)
def test_text_that_is_no_row_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_row(text, RecordRow)


def test_line_items_are_read_as_they_were_written() -> None:
    item = LineItem(
        "input_tokens",
        Decimal(3),
        "per_million_tokens",
        None,
        None,
        "half \udc80",
        "h1",
        terms=(("region", "eu"),),
        context_tokens=200_001,
    )
    cost = Cost((*COST.line_items, item), Decimal(0), Decimal(0), Decimal(0))

    text = make_record_row(make_record(make_intent("r1"), cost=cost)).line_items

    assert isinstance(text, str)
    assert read_line_items(text) == cost.line_items
    assert read_line_items(None) == ()


@pytest.mark.parametrize("model", ["gpt-5.4", "Exact-E1", "half \ud800"])
def test_line_items_have_plain_digits_and_their_own_names(model: str) -> None:
    item = LineItem("input_tokens", Decimal("1E+3"), "per_hour", Decimal("1E-7"), Decimal("1E-10"), model, "e5")
    unpriced = LineItem("images", Decimal(2), "", None, None, model)
    cost = Cost((item, unpriced), Decimal("1E-10"), Decimal(0), Decimal("1E-10"))

    text = make_record_row(make_record(make_intent("r1"), cost=cost)).line_items

    assert isinstance(text, str)
    assert json.loads(text) == [
        {
            "type": "input_tokens",
            "quantity": "1000",
            "unit": "per_hour",
            "unit_price": "0.0000001",
            "amount": "0.0000000001",
            "model": model,
            "price_hash": "e5",
        },
        {
            "type": "images",
            "quantity": "2",
            "unit": "",
            "unit_price": None,
            "amount": None,
            "model": model,
            "price_hash": None,
        },
    ]
