"""Records become rows of text, and line items come back from them."""

from __future__ import annotations

import json

from tests.ledger.sample_records import make_intent, make_record
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
)


def test_rows_have_every_column() -> None:
    record = make_record(make_intent("r1"))

    others = ("objects", "key_fingerprint", "key_owner", "bound_total", "bound_subtotal")

    assert tuple(make_intent_row(record.intent)) == INTENT_COLUMNS
    assert set(make_record_row(record)) == {*RECORD_COLUMNS, *others}


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
