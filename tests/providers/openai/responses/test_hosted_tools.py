from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts
from tests.providers.openai.responses.bodies import FACTS, JSON, USAGE, report_json, request, response
from tests.providers.reading import read_three_ways
from tests.providers.recorded import response_body
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView
from tornado_proxy.providers.openai.responses.endpoint import make_reader, parse


def test_recorded_images_without_stated_tokens_are_estimated_by_size_and_quality():
    report = read_three_ways(lambda: make_reader(FACTS, JSON), response_body("responses-image-generation"))

    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "image_size_and_quality")
    # 196: one image of low quality, 1024x1024, by the calculator of gpt-image-2, the tool's default model.
    assert amounts(report) == {"input_tokens": 3151, "output_tokens": 1970, "output_image_tokens": 196}
    assert "prompt is not known" in report.faults[0]


@pytest.mark.parametrize(
    ("tool", "spends"),
    [
        pytest.param({"type": "function", "name": "f"}, [], id="functions are tokens only"),
        pytest.param(
            {"type": "web_search"},
            [Spend("gpt-4o", frozenset({Meter.WEB_SEARCHES}), terms=Terms(tool="web_search"))],
            id="web search",
        ),
        pytest.param(
            {"type": "web_search_preview_2025_03_11"},
            [Spend("gpt-4o", frozenset({Meter.WEB_SEARCHES}), terms=Terms(tool="web_search_preview"))],
            id="a dated tool is priced without its date",
        ),
        pytest.param(
            {"type": "file_search"},
            [Spend("gpt-4o", frozenset({Meter.FILE_SEARCHES}), terms=Terms(tool="file_search"))],
            id="file search",
        ),
        pytest.param(
            {"type": "image_generation", "model": "gpt-image-1"},
            [Spend("gpt-image-1", frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE}), role="image_generation_tool")],
            id="images at their own model",
        ),
        pytest.param(
            {"type": "image_generation"},
            [Spend("gpt-image-2", frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE}), role="image_generation_tool")],
            id="images at the default model",
        ),
        pytest.param(
            {"type": "code_interpreter", "container": {"type": "auto"}},
            [Spend("gpt-4o", frozenset({Meter.CONTAINER_SECONDS}))],
            id="a container of the usual size",
        ),
        pytest.param(
            {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "16g"}},
            [Spend("gpt-4o", frozenset({Meter.CONTAINER_SECONDS}), terms=Terms(memory_limit="16g"))],
            id="a large container",
        ),
        pytest.param(
            {"type": "shell", "environment": {"type": "container_auto"}},
            [Spend("gpt-4o", frozenset({Meter.CONTAINER_SECONDS}))],
            id="hosted shell",
        ),
        pytest.param({"type": "shell", "environment": {"type": "local"}}, [], id="a shell on the client's machine"),
        pytest.param("web_search", [], id="not an object"),
        pytest.param({"type": 5}, [], id="type is not text"),
    ],
)
def test_hosted_tools_need_a_price(tool, spends):
    assert list(parse(RequestView(request(tools=[tool]), "")).facts.spends[1:]) == spends


def test_image_tokens_are_charged_at_the_image_model_that_the_response_names():
    image_usage = {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 4160,
        "total_tokens": 4210,
    }
    facts = parse(RequestView(request(tools=[{"type": "image_generation"}]), "")).facts
    tools = [{"type": "image_generation", "model": "gpt-image-1.5"}]

    own_item, image_item = report_json(response(tool_usage={"image_gen": image_usage}, tools=tools), facts).items

    assert (own_item.model, own_item.context_tokens) == ("gpt-4o-2024-08-06", 10)
    assert image_item.model == "gpt-image-1.5"
    assert {q.meter: int(q.amount) for q in image_item.quantities} == {Meter.INPUT: 50, Meter.OUTPUT_IMAGE: 4160}
    assert report_json(response(tool_usage={"image_gen": image_usage}), facts).items[1].model == "gpt-image-2"


def test_cached_input_of_the_image_tool_costs_the_cached_price():
    # gpt-image-2, USD per million: text 5, cached 1.25; images 8, cached 2; output 30.
    stated = {
        "input_tokens": 1000,
        "input_tokens_details": {"text_tokens": 200, "image_tokens": 800},
        "cached_tokens": 900,
        "cached_tokens_details": {"cached_image_tokens": 750, "cached_text_tokens": 150},
        "output_tokens": 100,
    }
    own_usage = {"input_tokens": 0, "output_tokens": 0}

    report = report_json(response(usage=own_usage, tool_usage={"image_gen": stated}))

    assert subtotal(report, FACTS) == Decimal("0.0053375")


def test_raw_usage_includes_tool_usage_as_the_provider_states_it():
    report = report_json(response(tool_usage={"web_search": {"num_requests": 2}}))

    assert json.loads(report.raw or "") == USAGE | {"tool_usage": {"web_search": {"num_requests": 2}}}


def search(kind: str = "search", **members: Any) -> dict[str, Any]:
    return {"type": "web_search_call", "id": "ws_1", "action": {"type": kind}} | members


@pytest.mark.parametrize(
    ("members", "searches"),
    [
        pytest.param({"output": [search(), search(), search("open_page"), search("find_in_page")]}, 2, id="items"),
        pytest.param({"output": [search(status="failed"), search(status="completed")]}, 1, id="a failed one is free"),
        pytest.param({"output": [search()] * 3, "tool_usage": {"web_search": {"num_requests": 2}}}, 2, id="stated"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": 0}}}, 0, id="stated as zero"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": -3}}}, 1, id="negative"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": True}}}, 1, id="no number"),
        pytest.param({"output": 5}, 0, id="not a list"),
        pytest.param({"output": [5, {"type": "web_search_call"}]}, 0, id="not objects"),
    ],
)
def test_only_charged_searches_are_counted(members, searches):
    assert amounts(report_json(response(**members))).get("web_searches", 0) == searches


PREVIEW = {"type": "web_search_preview_2025_03_11"}


@pytest.mark.parametrize("tools", [[PREVIEW], [{"type": "namespace", "name": "n", "tools": [PREVIEW]}]])
@pytest.mark.parametrize("padding", ["", "x" * 200_000], ids=["small", "large"])
def test_a_search_is_priced_by_the_tool_that_the_response_names(tools, padding):
    searched = {"output": [search()], "tools": tools, "instructions": padding}

    (item,) = report_json(response(**searched)).items

    assert [dict(q.terms.pairs()) for q in item.quantities if q.meter is Meter.WEB_SEARCHES] == [
        {"tool": "web_search_preview"}
    ]


def test_created_items_and_containers_are_objects_of_the_report():
    output = [
        {"type": "message", "id": "msg_1"},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
        {"type": "shell_call", "id": "sh_1", "environment": {"container_id": "cntr_2"}},
    ]

    assert report_json(response(output=output)).objects == ("msg_1", "ci_1", "sh_1", "cntr_1", "cntr_2")


UNPRICED = {"type": "image_generation", "model": "gpt-image-unpriced-9"}
SEARCH = {"type": "web_search_2025_08_26"}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"tools": [UNPRICED, SEARCH]}, id="in tools"),
        pytest.param(
            {"input": [{"type": "additional_tools", "role": "developer", "tools": [UNPRICED, SEARCH]}]},
            id="in additional_tools",
        ),
        pytest.param(
            {"input": [{"role": "user", "content": "x"}, {"type": "tool_search_output", "tools": [UNPRICED, SEARCH]}]},
            id="in tool_search_output",
        ),
        pytest.param(
            {"tools": [{"type": "namespace", "name": "n", "tools": [SEARCH]}], "input": [{"tools": [UNPRICED]}]},
            id="in a namespace, and in an item without a type",
        ),
        pytest.param(
            {"input": [{"type": "additional_tools", "tools": [{"type": "namespace", "tools": [UNPRICED, SEARCH]}]}]},
            id="in a namespace of an item",
        ),
    ],
)
def test_a_tool_is_a_spend_wherever_it_is_declared(members):
    spends = parse(RequestView(request(**members), "")).facts.spends

    assert {(spend.model, spend.role) for spend in spends} == {
        ("gpt-4o", None),
        ("gpt-image-unpriced-9", "image_generation_tool"),
    }
    assert Terms(tool="web_search") in {spend.terms for spend in spends}


@pytest.mark.parametrize("value", [5, {"role": "user"}, [{"tools": []}, [UNPRICED]], [[[{"tools": [UNPRICED]}]]]])
def test_input_that_cannot_be_searched_for_tools_is_rejected(value):
    with pytest.raises(InvalidBody, match=r"must be (text or )?a list of items"):
        parse(RequestView(request(input=value), ""))


@pytest.mark.parametrize(
    ("tool", "author"),
    [
        pytest.param({"svg": {"model": "gpt-6-astra"}, "output_format": "svg"}, "gpt-6-astra", id="named"),
        pytest.param({"svg": {"model": "gpt-6-astra"}}, "gpt-6-astra", id="named, format not"),
        pytest.param({"output_format": "svg"}, "gpt-4o", id="the response's own model"),
    ],
)
def test_the_author_of_an_svg_is_a_spend(tool, author):
    spends = parse(RequestView(request(tools=[{"type": "image_generation"} | tool]), "")).facts.spends

    assert spends[-1] == Spend(author, frozenset({Meter.INPUT, Meter.OUTPUT}), endpoint="/v1/responses")


def test_each_author_of_an_svg_is_charged_at_its_own_model():
    call = {"type": "image_generation_call", "id": "ig_1", "status": "completed"}
    stated = {"model": "gpt-6-astra", "input_tokens": 5000, "output_tokens": 20_000}
    own_usage = {"input_tokens": 1000, "output_tokens": 100}
    drawn = {"image_gen": {"input_tokens": 0, "output_tokens": 1000}}

    report = report_json(
        response(
            usage=own_usage,
            tool_usage=drawn,
            output=[call | {"svg_usage": stated}, call | {"svg_usage": stated | {"model": "gpt-4o"}}],
        )
    )

    # gpt-4o 2.50 and 10 USD per million: 0.0035, and 0.2125 for an SVG; gpt-image-2 0.03; gpt-6-astra 1.05.
    assert subtotal(report, FACTS) == Decimal("1.296")
    assert len(json.loads(report.raw or "")["svg_usage"]) == 2
