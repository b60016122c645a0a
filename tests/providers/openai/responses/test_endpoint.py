from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import exchange, expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import DeferredRatingFacts, RequestFacts, Spend
from tornado_proxy.domain.terms import Terms
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.responses.endpoint import RESPONSE_ENDPOINTS, make_reader, parse
from tornado_proxy.providers.openai.responses.reader import ResponseStreamReader, is_finished
from tornado_proxy.wire import sse

JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")
FACTS = RequestFacts(model="gpt-4o", body_bytes=400)
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "input": "hi"} | members).encode()


def response(**members: Any) -> dict[str, Any]:
    return {"id": "resp_1", "model": "gpt-4o-2024-08-06", "status": "completed", "usage": USAGE} | members


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | members)}\n\n".encode()


def of_json(body: dict[str, Any], facts: RequestFacts = FACTS) -> UsageReport:
    return read_three_ways(lambda: make_reader(facts, JSON), json.dumps(body).encode())


def of_stream(*events: bytes, facts: RequestFacts = FACTS, complete: bool = True) -> UsageReport:
    return read(make_reader(facts, SSE), events, complete=complete)


def meters(report: UsageReport) -> dict[str, int]:
    return {q.meter.value: int(q.amount) for reading in report.items for q in reading.quantities}


def undated(found: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Expected lines name the priced model; the answer names its snapshot, `-2024-08-06` say."""
    return sorted((model[:-11] if model[-6:-5] == model[-3:-2] == "-" else model, *rest) for model, *rest in found)


@pytest.mark.parametrize(
    "name",
    [
        "responses-background-done",
        "responses-cached",
        "responses-code-interpreter",
        "responses-compact",
        "responses-file-search",
        "responses-get-stream",
        "responses-priority",
        "responses-stream",
        "responses-web-search",
        "responses-web-search-cache-write",
    ],
)
def test_recorded_answers_come_to_the_expected_lines(name):
    # A settlement reads what GET answers with the same reader, for the model that was asked for.
    model = (exchange(name)["request"].get("body") or {"model": "gpt-4o"})["model"]
    head = SSE if "event-stream" in exchange(name)["response"]["headers"]["content-type"] else JSON

    report = read_three_ways(lambda: make_reader(RequestFacts(model=model), head), response_body(name))

    assert undated(lines([report], model)) == expected_lines(name)
    assert report.basis is Basis.REPORTED


def test_the_tier_is_the_one_that_served():
    assert (
        read(make_reader(FACTS, JSON), [response_body("responses-priority")]).items[0].terms.service_tier == "priority"
    )


def test_a_recorded_background_response_is_pending_under_its_id():
    parsed = parse(RequestView(*request_body("responses-background-created")))

    report = read_three_ways(lambda: make_reader(parsed.facts, JSON), response_body("responses-background-created"))

    assert parsed.facts.background
    assert report.basis is Basis.PENDING
    assert report.object_id == "resp_06a562f31ab7703300698b9df109c481979ebf760b2ff5fc75"
    assert report.items == ()


def test_a_recorded_refusal_at_the_start_of_a_stream_is_free():
    report = read_three_ways(lambda: make_reader(FACTS, SSE), response_body("responses-stream-error"))

    assert (report.basis, report.items) == (Basis.FREE, ())


def test_a_recorded_error_status_is_free():
    (create,) = (row for row in RESPONSE_ENDPOINTS if (row.method, row.path) == ("POST", "/v1/responses"))
    head = ResponseHead(400, "application/json")

    report = read(create.usage_reader(FACTS, head), [response_body("responses-error")])

    assert report.basis is Basis.FREE


def test_recorded_pictures_whose_tokens_are_stated_nowhere_are_estimated_by_size_and_quality():
    report = read_three_ways(lambda: make_reader(FACTS, JSON), response_body("responses-image-generation"))

    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "image_size_and_quality")
    assert meters(report) == {"input_tokens": 3151, "output_tokens": 1970, "output_image_tokens": 272}
    assert "prompt is not known" in report.faults[0]


def test_a_container_that_ran_is_told_because_nothing_states_its_time():
    report = read(make_reader(FACTS, JSON), [response_body("responses-code-interpreter")])

    (note,) = report.faults
    assert "cntr_6903bf2c0470819090b2b1e63e0b66800c139a5d654a42ec" in note


# --- requests


def test_what_a_request_can_cost_is_told():
    facts = parse(RequestView(request(stream=True, service_tier="flex", background=True), "")).facts

    assert (facts.model, facts.stream, facts.background, facts.terms.service_tier) == ("gpt-4o", True, True, "flex")
    assert facts.spends == (Spend("gpt-4o", frozenset({Meter.INPUT, Meter.OUTPUT}), terms=Terms("flex")),)


def test_the_body_is_sent_as_it_came():
    body = request(stream=True)

    assert parse(RequestView(body, "")).body is body


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
            id="pictures at their own model",
        ),
        pytest.param(
            {"type": "image_generation"},
            [Spend("gpt-image-2", frozenset({Meter.INPUT, Meter.OUTPUT_IMAGE}), role="image_generation_tool")],
            id="pictures at the default model",
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
        pytest.param("web_search", [], id="no object"),
        pytest.param({"type": 5}, [], id="type is no text"),
    ],
)
def test_hosted_tools_must_have_a_price(tool, spends):
    assert list(parse(RequestView(request(tools=[tool]), "")).facts.spends[1:]) == spends


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
        pytest.param({"input": ["x", 5, None, [{"id": "y"}]]}, (), id="nothing that could be an item"),
        pytest.param({"conversation": None, "previous_response_id": None}, (), id="nothing"),
    ],
)
def test_objects_that_the_body_names_are_told(members, references):
    assert parse(RequestView(request(**members), "")).facts.references == references


def test_an_item_reference_that_hides_behind_an_escape_is_told():
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
def test_a_body_that_another_reader_might_read_differently_is_refused(members, message):
    with pytest.raises(InvalidBody, match=message):
        parse(RequestView(request(**members), ""))


# --- answers


def test_a_cache_write_for_twelve_hours_is_of_another_kind():
    facts = parse(RequestView(request(prompt_cache_options={"ttl": "12h"}), "")).facts
    stated = USAGE | {"input_tokens_details": {"cache_write_tokens": 4}}

    assert meters(of_json(response(usage=stated), facts))["cache_write_12h_tokens"] == 4
    assert meters(of_json(response(usage=stated)))["cache_write_tokens"] == 4


@pytest.mark.parametrize(
    "answered",
    [
        response(usage=USAGE | {"input_tokens_details": {"cache_write_tokens": 4}}, service_tier="flex"),
        response(tool_usage={"image_gen": {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210}}),
        {"id": "resp_1", "status": "completed", "output": []},
    ],
    ids=["a cache write for twelve hours", "pictures of a model that the answer does not name", "no usage at all"],
)
def test_an_answer_that_comes_later_reads_as_one_that_came_at_once(answered):
    image_tool = {"type": "image_generation", "model": "gpt-image-1.5"}
    members = {"tools": [image_tool], "prompt_cache_options": {"ttl": "12h"}, "service_tier": "flex"}
    facts = parse(RequestView(request(background=True, **members), "")).facts

    kept = DeferredRatingFacts.of(facts).facts("gpt-4o")

    assert of_json(answered, kept) == of_json(answered, facts)
    assert of_json(answered, kept) != of_json(answered, RequestFacts(model="gpt-4o"))


def test_tokens_of_pictures_are_charged_at_the_image_model_that_the_answer_names():
    drawn = {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 4160,
        "total_tokens": 4210,
    }
    facts = parse(RequestView(request(tools=[{"type": "image_generation"}]), "")).facts
    tools = [{"type": "image_generation", "model": "gpt-image-1.5"}]

    own, image = of_json(response(tool_usage={"image_gen": drawn}, tools=tools), facts).items

    assert (own.model, own.context_tokens) == ("gpt-4o-2024-08-06", 10)
    assert image.model == "gpt-image-1.5"
    assert {q.meter: int(q.amount) for q in image.quantities} == {Meter.INPUT: 50, Meter.OUTPUT_IMAGE: 4160}
    assert of_json(response(tool_usage={"image_gen": drawn}), facts).items[1].model == "gpt-image-2"


def test_usage_is_kept_as_the_provider_states_it_with_that_of_its_tools():
    report = of_json(response(tool_usage={"web_search": {"num_requests": 2}}))

    assert json.loads(report.raw or "") == USAGE | {"tool_usage": {"web_search": {"num_requests": 2}}}


def search(kind: str = "search", **members: Any) -> dict[str, Any]:
    return {"type": "web_search_call", "id": "ws_1", "action": {"type": kind}} | members


@pytest.mark.parametrize(
    ("members", "searches"),
    [
        pytest.param({"output": [search(), search(), search("open_page"), search("find_in_page")]}, 2, id="items"),
        pytest.param({"output": [search(status="failed"), search(status="completed")]}, 1, id="a failed one is free"),
        pytest.param({"output": [search()] * 3, "tool_usage": {"web_search": {"num_requests": 2}}}, 2, id="stated"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": 0}}}, 0, id="stated as none"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": -3}}}, 1, id="below zero"),
        pytest.param({"output": [search()], "tool_usage": {"web_search": {"num_requests": True}}}, 1, id="no number"),
        pytest.param({"output": 5}, 0, id="no list"),
        pytest.param({"output": [5, {"type": "web_search_call"}]}, 0, id="no objects"),
    ],
)
def test_searches_are_counted_as_they_are_charged(members, searches):
    assert meters(of_json(response(**members))).get("web_searches", 0) == searches


def test_the_kind_of_search_is_that_of_the_tool():
    searched = {"output": [search()], "tools": [{"type": "web_search_preview_2025_03_11"}]}

    (reading,) = of_json(response(**searched)).items

    assert [dict(q.terms.pairs()) for q in reading.quantities if q.meter is Meter.WEB_SEARCHES] == [
        {"tool": "web_search_preview"}
    ]


def test_what_the_response_made_belongs_to_its_project():
    output = [
        {"type": "message", "id": "msg_1"},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
        {"type": "shell_call", "id": "sh_1", "environment": {"container_id": "cntr_2"}},
    ]

    assert of_json(response(output=output)).objects == ("msg_1", "ci_1", "sh_1", "cntr_1", "cntr_2")


@pytest.mark.parametrize(
    ("members", "basis"),
    [
        pytest.param({"status": "queued"}, Basis.PENDING, id="queued"),
        pytest.param({"status": "in_progress"}, Basis.PENDING, id="in progress"),
        pytest.param({"status": "failed", "output": []}, Basis.FREE, id="failed before it began"),
        pytest.param({"status": "failed", "output": [{"type": "message"}]}, Basis.ESTIMATED, id="failed later"),
        pytest.param({"status": "cancelled"}, Basis.UNSETTLED, id="cancelled"),
        pytest.param({"status": "completed"}, Basis.ESTIMATED, id="completed"),
        pytest.param({"status": "incomplete"}, Basis.ESTIMATED, id="incomplete"),
        pytest.param({"status": 5}, Basis.ESTIMATED, id="no word"),
    ],
)
@pytest.mark.parametrize("usage", [None, {}])
def test_an_answer_without_usage_is_never_nothing_in_silence(members, basis, usage):
    assert of_json(response(usage=usage, **members)).basis is basis


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_every_terminal_event_states_usage(kind):
    report = of_stream(
        event("response.created", response=response(status="in_progress", usage=None)),
        event("response.output_text.delta", delta="response.completed"),
        event(f"response.{kind}", response=response(status=kind)),
    )

    assert (report.basis, meters(report)) == (Basis.REPORTED, {"input_tokens": 10, "output_tokens": 5})


def test_a_terminal_event_is_found_wherever_its_type_stands():
    late = {"response": response(instructions="x" * 1000), "type": "response.completed"}

    assert of_stream(f"data: {json.dumps(late)}\n\n".encode()).basis is Basis.REPORTED
    assert of_stream(f"data: {json.dumps(late)}".encode()).basis is Basis.REPORTED


def test_a_stream_that_broke_off_is_estimated_by_its_deltas():
    report = of_stream(
        event("response.created", response=response(status="in_progress", usage=None, service_tier="priority")),
        event("response.output_text.delta", delta="\u00e9" * 10),
        event("response.function_call_arguments.delta", delta="x" * 20),
        event("response.output_text.delta", delta={"no": "text"}),
        b"event: response.comp",
        complete=False,
    )

    assert report.basis is Basis.ESTIMATED
    assert meters(report) == {"input_tokens": 100, "output_tokens": 10}
    assert (report.items[0].model, report.items[0].terms.service_tier) == ("gpt-4o-2024-08-06", "priority")
    assert report.object_id == "resp_1"


def test_a_tier_that_is_left_to_the_provider_is_none():
    begun = event("response.created", response=response(status="in_progress", usage=None, service_tier="auto"))

    assert of_stream(begun, complete=False).items[0].terms.service_tier is None


def test_a_stream_of_which_nothing_came_is_not_free():
    report = of_stream(complete=False)

    assert (report.basis, meters(report)) == (Basis.ESTIMATED, {"input_tokens": 100})


def test_an_error_in_place_of_a_response_is_free_and_one_after_it_began_is_estimated():
    error = event("error", code="server_error", message="no")
    begun = event("response.created", response=response(status="in_progress", usage=None))

    assert of_stream(error).basis is Basis.FREE
    assert of_stream(begun, error).basis is Basis.ESTIMATED


def test_a_background_stream_that_is_left_is_pending_and_one_that_ended_is_not():
    facts = RequestFacts(model="gpt-4o", background=True)
    begun = event("response.queued", response=response(status="queued", usage=None))
    failed = event("response.failed", response=response(status="failed", usage=None, output=[{"type": "message"}]))

    left = of_stream(begun, facts=facts, complete=False)

    assert (left.basis, left.object_id) == (Basis.PENDING, "resp_1")
    assert of_stream(begun, failed, facts=facts).basis is Basis.ESTIMATED


def test_the_id_is_known_as_soon_as_the_stream_names_it():
    begun = ResponseStreamReader(FACTS)
    assert begun.object_id is None

    begun.feed(event("response.created", response=response(status="in_progress", usage=None)))

    assert begun.object_id == "resp_1"


def test_an_event_too_large_to_be_read_is_told_and_nothing_grows(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)

    report = of_stream(event("response.output_text.delta", delta="abcd"), *[b"x" * 600] * 10)

    assert report.basis is Basis.ESTIMATED
    assert "too large" in report.faults[0]


@pytest.mark.parametrize(
    ("body", "finished"),
    [
        (b'{"status":"completed"}', True),
        (b'{"status":"cancelled"}', True),
        (b'{"status":"queued"}', False),
        (b'{"status":"in_progress"}', False),
        (b"<html>", False),
    ],
)
def test_a_response_is_finished_when_no_more_usage_will_come(body, finished):
    assert is_finished(body) is finished


@given(st.binary(max_size=300), st.sampled_from([JSON, SSE]))
def test_no_bytes_make_a_reader_raise(data, head):
    read(make_reader(FACTS, head), [b"data: ", data, b"\n\n", data])


MEMBERS = [
    "usage",
    "output",
    "tools",
    "tool_usage",
    "status",
    "image_gen",
    "web_search",
    "type",
    "action",
    "num_requests",
]
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["failed", "web_search_call", "search", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(MEMBERS), JSONISH))
def test_no_shape_of_an_answer_makes_a_reader_raise_or_charge_below_zero(body):
    for report in (of_stream(event("response.completed", response=body)), of_stream(event("x", **body))):
        assert all(q.amount > 0 for one in report.items for q in one.quantities)
    read(make_reader(FACTS, JSON), [json.dumps(body).encode()])


@given(st.lists(st.integers(0, 20_000)))
def test_cuts_do_not_change_what_is_read(cuts):
    data = response_body("responses-stream")

    assert read(make_reader(FACTS, SSE), pieces(data, cuts)) == read(make_reader(FACTS, SSE), [data])


def test_the_count_of_input_tokens_is_free_but_names_its_model():
    counting = next(one for one in RESPONSE_ENDPOINTS if one.path.endswith("input_tokens"))

    assert not counting.charged
    assert counting.parse is parse
    assert counting.priced_as == "/v1/responses"
