"""Stored usage is parsed again by the reader of its endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ledger.sample_records import make_intent, make_record
from tests.reports.rated_records import USAGE, row_of
from tornado_proxy.domain.usage import Basis
from tornado_proxy.reports.reparse_usage import reparse_usage


def test_usage_is_parsed_with_the_stored_model() -> None:
    report = reparse_usage(row_of(make_record(make_intent("req_1"), usage=USAGE)))

    assert report is not None
    (item,) = report.items
    assert (report.basis, item.model) == (Basis.REPORTED, "gpt-5.4-2026-03-05")
    assert {quantity.meter.value: int(quantity.amount) for quantity in item.quantities} == {
        "input_tokens": 1000,
        "output_tokens": 100,
    }


def test_usage_of_another_provider_is_parsed_by_its_own_reader() -> None:
    request = make_intent("req_1", provider="anthropic", endpoint="/v1/messages", model_requested="claude-haiku-4-5")
    usage = '{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":5}'

    report = reparse_usage(row_of(make_record(request, usage=usage, model="claude-haiku-4-5")))

    assert report is not None
    assert {quantity.meter.value: int(quantity.amount) for quantity in report.items[0].quantities} == {
        "input_tokens": 3,
        "cached_input_tokens": 2,
        "output_tokens": 5,
    }


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"usage": None}, id="no usage"),
        pytest.param({"usage": "[]"}, id="no JSON object"),
        pytest.param({"usage": '{"prompt_tokens":-1}'}, id="usage that does not add up"),
        pytest.param({"endpoint": "/v1/nowhere"}, id="an unknown endpoint"),
        pytest.param({"endpoint": "/v1/models", "method": "GET"}, id="a free endpoint"),
    ],
)
def test_record_whose_usage_cannot_be_parsed_has_no_report(members: dict[str, Any]) -> None:
    row = {**row_of(make_record(make_intent("req_1"), usage=USAGE)), **members}

    assert reparse_usage(row) is None
