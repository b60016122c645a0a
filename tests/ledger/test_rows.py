"""Records become rows of text, and line items come back from them."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.ledger.sample_records import COST, make_intent, make_record
from tornado_proxy.domain.cost import Cost, LineItem
from tornado_proxy.domain.identity import KeyId
from tornado_proxy.domain.request import DeferredRatingFacts
from tornado_proxy.domain.terms import Terms
from tornado_proxy.ledger.rows import (
    INTENT_COLUMNS,
    RECORD_COLUMNS,
    make_intent_row,
    make_object_rows,
    make_record_row,
    make_storable_row,
    read_deferred_facts,
    read_line_items,
)


def test_rows_have_every_column() -> None:
    record = make_record(make_intent("r1"))

    others = ("objects", "key_fingerprint", "key_owner", "bound_total", "bound_subtotal")

    assert tuple(make_intent_row(record.intent)) == INTENT_COLUMNS
    assert set(make_record_row(record)) == {*RECORD_COLUMNS, *others}


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

    text = make_record_row(make_record(make_intent("r1"), cost=cost))["line_items"]

    assert isinstance(text, str)
    assert read_line_items(text) == cost.line_items
    assert read_line_items(None) == ()


@pytest.mark.parametrize("model", ["gpt-5.4", "Exact-E1", "half \ud800"])
def test_line_items_have_plain_digits_and_their_own_names(model: str) -> None:
    item = LineItem("input_tokens", Decimal("1E+3"), "per_hour", Decimal("1E-7"), Decimal("1E-10"), model, "e5")
    unpriced = LineItem("images", Decimal(2), "", None, None, model)
    cost = Cost((item, unpriced), Decimal("1E-10"), Decimal(0), Decimal("1E-10"))

    text = make_record_row(make_record(make_intent("r1"), cost=cost))["line_items"]

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


def test_every_created_object_belongs_to_the_project_once() -> None:
    intent = make_intent("r1", key=KeyId("main", "0123456789ab"))
    row = make_record_row(make_record(intent, object_id="resp_1", objects=("cntr_1", "resp_1")))

    owner = {"provider": "openai", "project_id": "project-a", "request_id": "r1"}
    owner |= {"provider_key": "main", "key_fingerprint": "0123456789ab", "key_owner": "server"}
    assert make_object_rows(row) == [{"object_id": "resp_1", **owner}, {"object_id": "cntr_1", **owner}]
    assert make_object_rows({**row, "objects": None}) == []


def test_unstorable_ids_of_objects_become_question_marks() -> None:
    row = make_record_row(make_record(make_intent("r1"), objects=("msg_\0", "cntr_\ud800", "ok")))

    assert make_storable_row(row)["objects"] == ["msg_?", "cntr_?", "ok"]


def test_unstorable_text_becomes_question_marks() -> None:
    assert make_storable_row({"a": "x\udc80y", "b": "x\0y", "c": 5, "d": None}) == {
        "a": "x?y",
        "b": "x?y",
        "c": 5,
        "d": None,
    }


def test_deferred_facts_are_read_as_they_were_written() -> None:
    facts = DeferredRatingFacts(
        Terms(service_tier="flex", cache_ttl="1h", completion_window="2h"), "gpt-image-1.5", 400
    )

    text = make_record_row(make_record(make_intent("r1"), deferred_facts=facts))["kept_facts"]

    assert isinstance(text, str)
    assert read_deferred_facts(text) == facts
    assert read_deferred_facts(None) == DeferredRatingFacts()
    assert read_deferred_facts(json.dumps({"service_tier": "flex"})) == DeferredRatingFacts(Terms(service_tier="flex"))
