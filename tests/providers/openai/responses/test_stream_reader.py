from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts
from tests.providers.openai.responses.bodies import FACTS, SSE, response
from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.openai.responses.endpoint import make_reader


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | members)}\n\n".encode()


def report_stream(*events: bytes, facts: RequestFacts = FACTS) -> UsageReport:
    return read_three_ways(lambda: make_reader(facts, SSE), b"".join(events))


def created(response_id: str = "resp_1", **members: Any) -> bytes:
    return event("response.created", response=response(id=response_id, status="in_progress", usage=None, **members))


def item_done(**item: Any) -> bytes:
    return event("response.output_item.done", output_index=0, item=item)


FAILED = event("response.failed", response=response(status="failed", usage=None, output=[]))
CANCELLED = event("response.cancelled", response=response(status="cancelled", usage=None, output=[]))
ERROR = event("error", code="server_error", message="no")
DELTAS = event("response.output_text.delta", delta="four") * 100
MESSAGE = item_done(type="message", id="msg_1", content=[{"type": "output_text", "text": "four" * 100}])
CALL = item_done(type="function_call", id="fc_1", name="find", arguments='{"a": 1, "b": 2}')


@pytest.mark.parametrize(
    ("events", "output_tokens"),
    [
        pytest.param([DELTAS, MESSAGE, FAILED], 100, id="deltas and an item, then response.failed"),
        pytest.param([DELTAS, MESSAGE, ERROR], 100, id="the same, then an error"),
        pytest.param([MESSAGE, FAILED], 100, id="an item without deltas"),
        pytest.param([CALL, FAILED], 5, id="a call: 4 bytes of name, 16 of arguments"),
        pytest.param([DELTAS, CANCELLED], 100, id="cancelled after deltas"),
    ],
)
def test_output_that_was_seen_is_estimated_if_the_end_states_no_usage(events: list[bytes], output_tokens: int) -> None:
    report = report_stream(created(), *events)

    # The request has 400 bytes: 100 tokens.
    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "utf8_bytes_div_4")
    assert amounts(report) == {"input_tokens": 100, "output_tokens": output_tokens}
    assert report.object_id == "resp_1"


def test_an_estimate_charges_searches_and_pictures_that_were_seen() -> None:
    search = item_done(type="web_search_call", id="ws_1", status="completed", action={"type": "search", "query": "x"})
    picture = item_done(
        type="image_generation_call",
        id="ig_1",
        status="completed",
        size="1254x1254",
        quality="medium",
        result="A" * 50_000,
    )

    report = report_stream(
        created(tools=[{"type": "image_generation", "model": "gpt-image-2"}]), search, picture, FAILED
    )

    assert amounts(report) == {"input_tokens": 100, "web_searches": 1, "output_image_tokens": 2058}
    assert report.objects == ("ws_1", "ig_1")


@pytest.mark.parametrize("end", [FAILED, ERROR])
def test_a_failure_without_output_is_not_charged_for_output(end: bytes) -> None:
    assert report_stream(end).basis is Basis.FREE
    assert "output_tokens" not in amounts(report_stream(created(), end))


@pytest.mark.parametrize(
    ("events", "failed"),
    [
        pytest.param([created(), DELTAS, ERROR], True, id="error"),
        pytest.param([created(), DELTAS, FAILED], True, id="response.failed"),
        pytest.param([ERROR], True, id="error alone"),
        pytest.param([event("response.failed", response=response(status="failed"))], True, id="failed, with usage"),
        pytest.param([event("response.incomplete", response=response(status="incomplete"))], False, id="incomplete"),
        pytest.param([created(), event("response.completed", response=response())], False, id="completed"),
        pytest.param([created(), DELTAS], False, id="broken off"),
    ],
)
def test_a_stream_that_ends_with_an_error_has_failed(events: list[bytes], failed: bool) -> None:
    assert report_stream(*events).failed is failed


def end(response_id: str, input_tokens: int, output_tokens: int, kind: str = "completed") -> bytes:
    usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return event(f"response.{kind}", response=response(id=response_id, model="gpt-4o", status=kind, usage=usage))


@pytest.mark.parametrize(
    ("events", "cost"),
    [
        # gpt-4o: 2.50 and 10 USD per million.
        pytest.param([end("resp_1", 1000, 100), end("resp_2", 2000, 10)], "0.0086", id="two responses"),
        pytest.param([end("resp_1", 1000, 100), end("resp_1", 1000, 100)], "0.0035", id="one response, ended twice"),
        pytest.param(
            [
                created("resp_1"),
                end("resp_1", 1000, 100, "incomplete"),
                created("resp_2"),
                end("resp_2", 400, 1),
                end("resp_1", 1000, 100, "incomplete"),
            ],
            "0.00451",
            id="an incomplete one and its successor, the first repeated",
        ),
    ],
)
def test_each_response_of_a_stream_is_charged_once(events: list[bytes], cost: str) -> None:
    report = report_stream(*events)

    assert subtotal(report, FACTS) == Decimal(cost)
    assert (report.basis, report.object_id) == (Basis.REPORTED, "resp_1")


def test_a_second_response_that_breaks_off_makes_the_report_an_estimate() -> None:
    report = read(make_reader(FACTS, SSE), [end("resp_1", 10, 5), created("resp_2"), DELTAS], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert [quantity.amount for item in report.items for quantity in item.quantities] == [10, 5, 100, 100]


def test_output_before_the_first_event_belongs_to_the_first_response() -> None:
    report = report_stream(DELTAS, created("resp_1"), FAILED)

    assert (amounts(report), report.object_id) == ({"input_tokens": 100, "output_tokens": 100}, "resp_1")
