from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts, undated
from tests.providers.openai.responses.bodies import FACTS, JSON, SSE, USAGE, report_json, request, response
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import exchange, expected_lines, lines, response_body
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import RequestView
from tornado_proxy.providers.openai.responses.endpoint import make_reader, parse
from tornado_proxy.providers.openai.responses.reader import is_finished
from tornado_proxy.providers.openai.responses.stream_reader import ResponseStreamReader
from tornado_proxy.wire import sse


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | members)}\n\n".encode()


def report_stream(*events: bytes, facts: RequestFacts = FACTS, complete: bool = True) -> UsageReport:
    return read(make_reader(facts, SSE), events, complete=complete)


@pytest.mark.parametrize(
    "name",
    [
        "responses-background-done",
        "responses-cached",
        "responses-compact",
        "responses-file-search",
        "responses-get-stream",
        "responses-priority",
        "responses-stream",
        "responses-web-search",
        "responses-web-search-cache-write",
    ],
)
def test_recorded_responses_give_the_expected_lines(name):
    # A settlement reads the response to GET with the same reader, for the requested model.
    model = (exchange(name)["request"].get("body") or {"model": "gpt-4o"})["model"]
    head = SSE if "event-stream" in exchange(name)["response"]["headers"]["content-type"] else JSON

    report = read_three_ways(lambda: make_reader(RequestFacts(model=model), head), response_body(name))

    assert undated(lines([report], model)) == expected_lines(name)
    assert report.basis is Basis.REPORTED


def test_the_tier_is_the_one_that_the_response_states():
    report = read(make_reader(FACTS, JSON), [response_body("responses-priority")])

    assert report.items[0].terms.service_tier == "priority"


def test_a_recorded_error_at_the_start_of_a_stream_is_free():
    report = read_three_ways(lambda: make_reader(FACTS, SSE), response_body("responses-stream-error"))

    assert (report.basis, report.items) == (Basis.FREE, ())


def test_cache_writes_of_two_lifetimes_cost_the_price_of_each():
    # gpt-6.1-terra, USD per million: input 1, output 5, write for 30 minutes 1.25, for 12 hours 2.5.
    facts = parse(RequestView(request(model="gpt-6.1-terra", prompt_cache_options={"ttl": "12h"}), "")).facts
    split = {"ttl_12h_tokens": 1000, "ttl_30m_tokens": 8000}
    details = {"cache_write_tokens": 9000, "cache_write_tokens_details": split}
    stated = {"input_tokens": 10_000, "input_tokens_details": details, "output_tokens": 100}

    report = report_json(response(model="gpt-6.1-terra", usage=stated), facts)

    assert subtotal(report, facts) == Decimal("0.014")


def test_a_cache_write_for_twelve_hours_has_its_own_meter():
    facts = parse(RequestView(request(prompt_cache_options={"ttl": "12h"}), "")).facts
    stated = USAGE | {"input_tokens_details": {"cache_write_tokens": 4}}

    assert amounts(report_json(response(usage=stated), facts))["cache_write_12h_tokens"] == 4
    assert amounts(report_json(response(usage=stated)))["cache_write_tokens"] == 4


@pytest.mark.parametrize(
    ("members", "basis"),
    [
        pytest.param({"status": "queued"}, Basis.PENDING, id="queued"),
        pytest.param({"status": "in_progress"}, Basis.PENDING, id="in progress"),
        pytest.param({"status": "failed", "output": []}, Basis.FREE, id="failed before it started"),
        pytest.param({"status": "failed", "output": [{"type": "message"}]}, Basis.ESTIMATED, id="failed later"),
        pytest.param({"status": "cancelled"}, Basis.ESTIMATED, id="cancelled"),
        pytest.param({"status": "completed"}, Basis.ESTIMATED, id="completed"),
        pytest.param({"status": "incomplete"}, Basis.ESTIMATED, id="incomplete"),
        pytest.param({"status": 5}, Basis.ESTIMATED, id="not text"),
    ],
)
@pytest.mark.parametrize("usage", [None, {}])
def test_the_status_of_a_response_without_usage_decides_the_basis(members, basis, usage):
    assert report_json(response(usage=usage, **members)).basis is basis


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        pytest.param({"status": "failed", "usage": USAGE}, True, id="failed, with usage"),
        pytest.param({"status": "failed", "usage": None, "output": []}, True, id="failed before it started"),
        pytest.param({"status": "failed", "usage": None}, True, id="failed later, without usage"),
        pytest.param({"status": "incomplete", "usage": None}, False, id="incomplete"),
        pytest.param({"status": "cancelled", "usage": None}, False, id="cancelled"),
        pytest.param({"status": "completed"}, False, id="completed"),
    ],
)
def test_a_response_object_with_status_failed_has_failed(members, failed):
    assert report_json(response(**{"output": [{"type": "message"}], **members})).failed is failed


@pytest.mark.parametrize("status", ["failed", "cancelled", "incomplete"])
def test_a_response_object_without_usage_keeps_its_id_and_its_searches(status):
    search = {"type": "file_search_call", "id": "fs_1", "status": "completed"}
    message = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "x" * 40}]}

    report = report_json(response(status=status, usage=None, output=[search, message]))

    # Ten tokens: four bytes of text for each.
    assert amounts(report)["output_tokens"] == 10
    assert amounts(report)["file_searches"] == 1
    assert (report.object_id, report.objects) == ("resp_1", ("fs_1", "msg_1"))
    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "utf8_bytes_div_4")


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_every_terminal_event_states_usage(kind):
    report = report_stream(
        event("response.created", response=response(status="in_progress", usage=None)),
        event("response.output_text.delta", delta="response.completed"),
        event(f"response.{kind}", response=response(status=kind)),
    )

    assert (report.basis, amounts(report)) == (Basis.REPORTED, {"input_tokens": 10, "output_tokens": 5})


def test_a_terminal_event_is_found_if_its_type_comes_last():
    late = {"response": response(instructions="x" * 1000), "type": "response.completed"}

    assert report_stream(f"data: {json.dumps(late)}\n\n".encode()).basis is Basis.REPORTED
    assert report_stream(f"data: {json.dumps(late)}".encode()).basis is Basis.REPORTED


def test_an_incomplete_stream_is_estimated_by_its_deltas():
    report = report_stream(
        event("response.created", response=response(status="in_progress", usage=None, service_tier="priority")),
        event("response.output_text.delta", delta="\u00e9" * 10),
        event("response.function_call_arguments.delta", delta="x" * 20),
        event("response.output_text.delta", delta={"no": "text"}),
        b"event: response.comp",
        complete=False,
    )

    assert report.basis is Basis.ESTIMATED
    assert amounts(report) == {"input_tokens": 100, "output_tokens": 10}
    assert (report.items[0].model, report.items[0].terms.service_tier) == ("gpt-4o-2024-08-06", "priority")
    assert report.object_id == "resp_1"


def test_the_tier_auto_counts_as_none():
    started = event("response.created", response=response(status="in_progress", usage=None, service_tier="auto"))

    assert report_stream(started, complete=False).items[0].terms.service_tier is None


def test_an_empty_stream_is_estimated_not_free():
    report = report_stream(complete=False)

    assert (report.basis, amounts(report)) == (Basis.ESTIMATED, {"input_tokens": 100})


def test_an_error_before_the_first_event_is_free_and_a_later_one_is_estimated():
    error = event("error", code="server_error", message="no")
    started = event("response.created", response=response(status="in_progress", usage=None))

    assert report_stream(error).basis is Basis.FREE
    assert report_stream(started, error).basis is Basis.ESTIMATED


def test_an_incomplete_background_stream_is_pending_and_an_ended_one_is_not():
    facts = RequestFacts(model="gpt-4o", background=True)
    started = event("response.queued", response=response(status="queued", usage=None))
    failed = event("response.failed", response=response(status="failed", usage=None, output=[{"type": "message"}]))

    incomplete = report_stream(started, facts=facts, complete=False)

    assert (incomplete.basis, incomplete.object_id) == (Basis.PENDING, "resp_1")
    assert report_stream(started, failed, facts=facts).basis is Basis.ESTIMATED


def test_the_id_is_known_from_the_first_event_on():
    started = ResponseStreamReader(FACTS)
    assert started.object_id is None

    started.feed(event("response.created", response=response(status="in_progress", usage=None)))

    assert started.object_id == "resp_1"


def test_an_event_that_is_too_large_is_a_fault_and_not_buffered(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)

    report = report_stream(event("response.output_text.delta", delta="abcd"), *[b"x" * 600] * 10)

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
def test_a_response_is_finished_unless_its_status_is_queued_or_in_progress(body, finished):
    assert is_finished(body) is finished


@given(st.binary(max_size=300), st.sampled_from([JSON, SSE]))
def test_random_bytes_never_make_a_reader_raise(data, head):
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
def test_random_members_never_make_a_reader_raise_or_charge_below_zero(body):
    for report in (report_stream(event("response.completed", response=body)), report_stream(event("x", **body))):
        assert all(q.amount > 0 for item in report.items for q in item.quantities)
    read(make_reader(FACTS, JSON), [json.dumps(body).encode()])


@given(st.lists(st.integers(0, 20_000)))
def test_cuts_do_not_change_the_report(cuts):
    data = response_body("responses-stream")

    assert read(make_reader(FACTS, SSE), pieces(data, cuts)) == read(make_reader(FACTS, SSE), [data])


@pytest.mark.parametrize(
    ("kind", "created"),
    [
        pytest.param("response", ("msg_theirs", "cmp_1"), id="the provider creates all items of a response"),
        pytest.param("response.compaction", ("cmp_1",), id="a compaction repeats items that the caller wrote"),
    ],
)
def test_only_items_that_the_provider_created_become_the_project_s(kind, created):
    output = [
        {"id": "msg_theirs", "type": "message", "role": "user", "content": []},
        {"id": "cmp_1", "type": "compaction", "encrypted_content": "x"},
    ]

    report = report_json(response(object=kind, output=output))

    assert report.objects == created


@pytest.mark.parametrize("facts", [FACTS, RequestFacts(model="gpt-4o", background=True, body_bytes=400)])
def test_cancelled_stream_is_estimated_by_the_deltas_that_have_passed(facts):
    deltas = [event("response.output_text.delta", delta="a" * 1000)] * 20
    created = event("response.created", response=response(status="in_progress"))
    cancelled = event("response.cancelled", response=response(status="cancelled", usage=None, output=[]))

    report = report_stream(created, *deltas, cancelled, facts=facts)

    assert report.basis is Basis.ESTIMATED
    assert amounts(report)["output_tokens"] == 5000


def test_stream_of_a_background_response_that_breaks_off_keeps_the_length_of_its_output():
    facts = RequestFacts(model="gpt-4o", background=True)
    created = event("response.created", response=response(status="in_progress"))

    report = report_stream(created, event("response.output_text.delta", delta="aé"), facts=facts, complete=False)

    assert (report.basis, report.output_bytes) == (Basis.PENDING, 3)


def test_cancelled_response_is_estimated_by_the_text_of_its_output():
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a" * 8}]},
        {"type": "message", "content": [{"type": "output_text", "text": "b" * 40, "logprobs": [{"text": 1}]}]},
        {"type": "function_call", "name": "f", "arguments": "c" * 12},
    ]

    report = report_json(response(usage=None, status="cancelled", output=output))

    assert amounts(report)["output_tokens"] == 16  # 8 + 40 + 12 bytes of text, and the name of the function
