from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.openai.costs import NOW, bundled_tariff, subtotal
from tests.providers.openai.reports import amounts
from tests.providers.openai.responses.bodies import FACTS, JSON, USAGE, report_json, request, response
from tests.providers.reading import read, read_three_ways
from tests.providers.recorded import request_body, response_body
from tornado_proxy.domain.errors import InvalidBody, ModelNotPriced
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.responses.endpoint import RESPONSE_ENDPOINTS, make_reader, parse
from tornado_proxy.providers.shared.response_readers import make_usage_reader


def test_a_recorded_background_response_is_pending_under_its_id():
    parsed = parse(RequestView(*request_body("responses-background-created")))

    report = read_three_ways(lambda: make_reader(parsed.facts, JSON), response_body("responses-background-created"))

    assert parsed.facts.background
    assert report.basis is Basis.PENDING
    assert report.object_id == "resp_06a562f31ab7703300698b9df109c481979ebf760b2ff5fc75"
    assert report.items == ()


def test_a_recorded_error_status_is_free():
    (create,) = (row for row in RESPONSE_ENDPOINTS if (row.method, row.path) == ("POST", "/v1/responses"))
    head = ResponseHead(400, "application/json")

    report = read(make_usage_reader(create, FACTS, head), [response_body("responses-error")])

    assert report.basis is Basis.FREE


def test_a_parameter_of_a_function_is_text():
    """Codex 0.171 declares one with the parameter `image_url`, in a namespace."""
    schema = {"type": "object", "properties": {"image_url": {"type": "string"}}}
    function = {"type": "function", "name": "send", "parameters": schema}
    namespace = {"type": "namespace", "name": "agents", "tools": [function]}
    image = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}
    mask = {"type": "image_generation", "input_image_mask": {"image_url": "data:image/png;base64,AAAA"}}

    def is_text_only(**members: Any) -> bool:
        return parse(RequestView(request(**members), "application/json")).facts.work.text_only

    assert is_text_only(tools=[function])
    assert is_text_only(tools=[namespace])
    assert not is_text_only(tools=[namespace], input=[image])
    assert not is_text_only(tools=[namespace, mask])


def test_a_request_spends_on_its_model_and_tier():
    facts = parse(RequestView(request(stream=True, service_tier="flex", background=True), "")).facts

    assert (facts.model, facts.stream, facts.background, facts.terms.service_tier) == ("gpt-4o", True, True, "flex")
    assert facts.spends == (Spend("gpt-4o", frozenset({Meter.INPUT, Meter.OUTPUT}), terms=Terms("flex")),)


def test_the_body_is_sent_unchanged():
    body = request(stream=True)

    assert parse(RequestView(body, "")).body is body


@pytest.mark.parametrize(
    ("members", "references"),
    [
        pytest.param({"previous_response_id": "resp_0"}, ("resp_0",), id="earlier response"),
        pytest.param({"conversation": "conv_1"}, ("conv_1",), id="conversation"),
        pytest.param({"conversation": {"id": "conv_1"}}, ("conv_1",), id="conversation as object"),
        pytest.param({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, ("cntr_1",), id="container"),
        pytest.param(
            {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_2"}}]},
            ("cntr_2",),
            id="container of a shell",
        ),
        pytest.param({"input": [{"type": "item_reference", "id": "msg_1"}]}, ("msg_1",), id="item"),
        pytest.param({"input": [{"id": "msg_1"}]}, ("msg_1",), id="item without a type"),
        pytest.param({"input": [{"id": "msg_1", "type": None}]}, ("msg_1",), id="item with a type of null"),
        pytest.param({"input": [{"id": "msg_1", "role": "user", "content": "x"}]}, (), id="message"),
        pytest.param({"input": [{"id": "rs_1", "type": "reasoning"}]}, (), id="an item of its own type"),
        pytest.param({"input": 'a text about {"type":"item_reference","id":"x"}'}, (), id="text"),
        pytest.param({"input": ["x", 5, None, [{"id": "y"}]]}, (), id="no items"),
        pytest.param({"conversation": None, "previous_response_id": None}, (), id="null"),
    ],
)
def test_objects_that_the_body_names_are_references(members, references):
    assert parse(RequestView(request(**members), "")).facts.references == references


def test_an_escaped_item_reference_is_found():
    body = b'{"model":"m","input":[{"type":"item\\u005freference","\\u0069d":"msg_1"},7]}'

    assert parse(RequestView(body, "")).facts.references == ("msg_1",)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"tools": 5}, '"tools" must be a list'),
        ({"stream": "yes"}, '"stream" must be true or false'),
        ({"background": 1}, '"background" must be true or false'),
        ({"model": None}, "name the model"),
    ],
)
def test_a_member_of_the_wrong_type_is_rejected(members, message):
    with pytest.raises(InvalidBody, match=message):
        parse(RequestView(request(**members), ""))


@pytest.mark.parametrize(
    "body",
    [
        response(usage=USAGE | {"input_tokens_details": {"cache_write_tokens": 4}}, service_tier="flex"),
        response(tool_usage={"image_gen": {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210}}),
        {"id": "resp_1", "status": "completed", "output": []},
    ],
    ids=["a cache write for twelve hours", "images of a model that the response does not name", "no usage"],
)
def test_a_deferred_response_is_reported_like_an_immediate_one(body):
    image_tool = {"type": "image_generation", "model": "gpt-image-1.5"}
    members = {"tools": [image_tool], "prompt_cache_options": {"ttl": "12h"}, "service_tier": "flex"}
    facts = parse(RequestView(request(background=True, **members), "")).facts

    stored = DeferredRatingFacts.of(facts).facts("gpt-4o")

    assert report_json(body, stored) == report_json(body, facts)
    assert report_json(body, stored) != report_json(body, RequestFacts(model="gpt-4o"))


def test_counting_input_tokens_is_free_but_requires_a_priced_model():
    counting = next(row for row in RESPONSE_ENDPOINTS if row.path.endswith("input_tokens"))

    assert not counting.charged
    assert counting.parse is parse
    assert counting.priced_as == "/v1/responses"


def test_a_large_response_is_read_and_estimated_by_its_text_alone():
    text = {"type": "output_text", "text": "four" * 1000, "logprobs": [{"token": "four", "top_logprobs": []}] * 10_000}
    call = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1 + 1"}
    image = {"type": "image_generation_call", "result": "A" * 3_000_000, "size": "1024x1024", "quality": "low"}
    output = [{"type": "message", "id": "msg_1", "content": [text]}, call, image]
    stated, unstated = response(output=output), response(output=output, usage=None)

    report = read(make_reader(FACTS, JSON), [json.dumps(stated).encode()])
    estimate = read(make_reader(FACTS, JSON), [json.dumps(unstated).encode()])

    stated_amounts = {"input_tokens": 10, "output_tokens": 5, "output_image_tokens": 196}
    assert amounts(report) == stated_amounts | {"container_seconds": 1}
    assert report.objects == ("msg_1", "ci_1", "cntr_1")
    # 4,000 bytes of text and five of code; nothing of the log probabilities and the picture's base64.
    assert amounts(estimate)["output_tokens"] == 1002


def background(**members: Any) -> bytes:
    return request(
        **{"model": "gpt-5.4", "background": True, "background_options": {"completion_window": "8h"}} | members
    )


@pytest.mark.parametrize(
    ("window", "usage", "cost"),
    [
        # gpt-5.4, USD per million: input 2.50, cached 0.25, output 15.
        pytest.param("8h", {"input_tokens": 100_000, "output_tokens": 10_000}, "0.24", id="8 hours: 40 % below 0.40"),
        pytest.param(
            "2h",
            {
                "input_tokens": 100_000,
                "input_tokens_details": {"cached_tokens": 50_000},
                "output_tokens": 10_000,
            },
            "0.20125",
            id="2 hours: 30 % below 0.2875",
        ),
        pytest.param("soonest", {"input_tokens": 100_000, "output_tokens": 10_000}, "0.4", id="soonest: full price"),
    ],
)
def test_a_completion_window_has_its_discount(window, usage, cost):
    facts = parse(RequestView(background(background_options={"completion_window": window}), "")).facts
    settled = DeferredRatingFacts.of(facts).facts("gpt-5.4")
    body = response(model="gpt-5.4-2026-03-05", service_tier="default", usage=usage)

    for spend in facts.spends:
        bundled_tariff().admit("/v1/responses", spend, NOW)
    assert subtotal(report_json(body, settled), settled) == Decimal(cost)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"model": "gpt-4o"}, id="a model without it"),
        pytest.param({"service_tier": "flex"}, id="another tier than standard"),
        pytest.param({"background_options": {"completion_window": "24h"}}, id="an unknown window"),
    ],
)
def test_a_completion_window_without_a_price_is_refused(members):
    (spend,) = parse(RequestView(background(**members), "")).facts.spends

    with pytest.raises(ModelNotPriced, match="completion_window"):
        bundled_tariff().admit("/v1/responses", spend, NOW)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(background(background=False), id="in the foreground"),
        pytest.param(background().replace(b'"8h"', b'"8h","completion_window":"soonest"'), id="twice"),
        pytest.param(background(background_options="8h"), id="no object"),
    ],
)
def test_an_ambiguous_completion_window_is_rejected(body):
    with pytest.raises(InvalidBody):
        parse(RequestView(body, ""))


def test_lists_in_the_input_are_read_in_linear_time() -> None:
    body = b'{"model":"gpt-4o-mini","input":[' + b"[]," * 300_000 + b'"hi"]}'

    started = time.process_time()
    parse(RequestView(body, "application/json"))

    assert time.process_time() - started < 3  # 0.1 s; a search of the body for each list takes minutes
