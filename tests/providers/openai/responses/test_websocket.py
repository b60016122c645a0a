from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import read_frame, reports_of
from tornado_proxy.domain.errors import (
    BudgetExceeded,
    BudgetReserved,
    InvalidBody,
    LimitReached,
    ModelNotPriced,
    Overloaded,
    RequestError,
)
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import ClientFrame, QuotaStated, UsageReported, WorkRejected, WorkStarted
from tornado_proxy.providers.openai.responses.websocket import RESPONSES_SOCKET, ResponsesSocketReader, open_responses

CREATE = {"type": "response.create", "model": "gpt-5.4", "input": "hi", "service_tier": "flex"}
USAGE = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


def reader_of(*frames: dict[str, object]) -> ResponsesSocketReader:
    reader = open_responses("", ())
    for frame in frames:
        read_frame(RESPONSES_SOCKET, reader, json.dumps(frame))
    return reader


def server(kind: str, response_id: str, **members: object) -> str:
    response = {"id": response_id, "model": "gpt-5.4", **members}
    return json.dumps({"type": kind, "sequence_number": 1, "response": response})


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(CREATE, id="on top level"),
        pytest.param({"type": "response.create", "response": {**CREATE, "type": "x"}}, id="nested"),
    ],
)
def test_a_request_is_read_from_the_frame_or_its_response(frame: dict[str, object]) -> None:
    client_frame = read_frame(RESPONSES_SOCKET, open_responses("", ()), json.dumps({**frame, "event_id": "mine"}))

    assert client_frame.event_id == "mine"
    assert client_frame.facts is not None
    assert (client_frame.facts.model, client_frame.facts.terms.service_tier) == ("gpt-5.4", "flex")
    assert [spend.model for spend in client_frame.spends] == ["gpt-5.4"]


def test_a_previous_response_is_a_reference() -> None:
    client_frame = read_frame(
        RESPONSES_SOCKET, open_responses("", ()), json.dumps({**CREATE, "previous_response_id": "resp_0"})
    )

    assert client_frame.references == ("resp_0",)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("[]", id="not an object"),
        pytest.param("{", id="no JSON"),
        pytest.param('{"model":"gpt-5.4"}', id="no type"),
        pytest.param('{"type":"response.create"}', id="no model"),
        pytest.param('{"type":"a","type":"response.create","model":"gpt-5.4"}', id="two types"),
        pytest.param('{"type":"response.create","model":"a","response":{"model":"b"}}', id="two requests"),
        pytest.param('{"type":"response.create","response":{"model":"a","model":"b"}}', id="two models"),
    ],
)
def test_an_invalid_or_ambiguous_frame_is_rejected(frame: str) -> None:
    with pytest.raises(InvalidBody):
        read_frame(RESPONSES_SOCKET, open_responses("", ()), frame)


def test_responses_end_in_order_with_usage_of_their_own() -> None:
    reader = reader_of(CREATE, {**CREATE, "service_tier": "priority"})

    assert reader.feed_server_frame(server("response.created", "resp_1")) == (WorkStarted("resp_1"),)
    completed = server("response.completed", "resp_1", usage=USAGE, service_tier="flex")
    (first,) = reports_of(reader.feed_server_frame(completed))
    assert reader.feed_server_frame(server("response.created", "resp_2")) == (WorkStarted("resp_2"),)
    incomplete = server("response.incomplete", "resp_2", usage=USAGE, service_tier="priority")
    (second,) = reports_of(reader.feed_server_frame(incomplete))

    assert [report.object_id for report in (first, second)] == ["resp_1", "resp_2"]
    assert [report.items[0].terms.service_tier for report in (first, second)] == ["flex", "priority"]
    amounts = {quantity.meter: quantity.amount for quantity in first.items[0].quantities if quantity.amount}
    assert amounts == {Meter.INPUT: Decimal(10), Meter.OUTPUT: Decimal(4)}
    assert not reader.working


def test_an_error_event_rejects_the_oldest_request() -> None:
    reader = reader_of(CREATE)

    events = reader.feed_server_frame('{"type":"error","status":400,"error":{"message":"no"}}')

    assert events == (WorkRejected(),)
    assert not reader.working


def lifecycle(kind: str, response_id: str, *, lane: str | None = None, **members: object) -> str:
    event = json.loads(server(kind, response_id, **members))
    return json.dumps(event if lane is None else {**event, "stream_id": lane})


def delta(text: str, *, lane: str | None = None) -> str:
    event = {"type": "response.output_text.delta", "delta": text}
    return json.dumps(event if lane is None else {**event, "stream_id": lane})


def test_steered_successor_is_work_of_its_own_with_the_settings_of_its_predecessor() -> None:
    reader = reader_of(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))
    steer = json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "more"})

    frame = read_frame(RESPONSES_SOCKET, reader, steer)
    reader.feed_server_frame(server("response.incomplete", "resp_1", usage=USAGE))
    (started,) = reader.feed_server_frame(server("response.created", "resp_2", previous_response_id="resp_1"))
    (report,) = reports_of(reader.feed_server_frame(server("response.completed", "resp_2", usage=USAGE)))

    assert (frame.references, frame.facts) == (("resp_1",), None)
    assert [spend.model for spend in frame.spends] == ["gpt-5.4"]
    assert isinstance(started, WorkStarted)
    assert started.facts is not None
    assert (started.facts.model, started.facts.terms.service_tier) == ("gpt-5.4", "flex")
    assert report.object_id == "resp_2"
    assert report.basis is Basis.REPORTED


def test_successor_that_names_no_predecessor_inherits_from_its_lane() -> None:
    reader = reader_of(CREATE | {"stream_id": "a"}, CREATE | {"stream_id": "b", "service_tier": "priority"})
    reader.feed_server_frame(lifecycle("response.created", "resp_a", lane="a"))
    reader.feed_server_frame(lifecycle("response.created", "resp_b", lane="b"))
    reader.feed_server_frame(lifecycle("response.completed", "resp_b", lane="b", usage=USAGE))

    (started,) = reader.feed_server_frame(lifecycle("response.created", "resp_c", lane="b"))

    assert isinstance(started, WorkStarted)
    assert started.facts is not None
    assert started.facts.terms.service_tier == "priority"


def test_lanes_keep_their_own_requests_usage_and_text() -> None:
    reader = reader_of(
        CREATE | {"stream_id": "a", "service_tier": "priority"},
        CREATE | {"stream_id": "b", "model": "gpt-4o-mini", "service_tier": "default"},
    )
    assert reader.feed_server_frame(lifecycle("response.created", "resp_b", lane="b")) == (WorkStarted("resp_b", "b"),)
    assert reader.feed_server_frame(lifecycle("response.created", "resp_a", lane="a")) == (WorkStarted("resp_a", "a"),)
    reader.feed_server_frame(delta("x" * 400, lane="a"))
    completed = lifecycle("response.completed", "resp_b", lane="b", model="gpt-4o-mini", usage=USAGE)

    (first,) = reports_of(reader.feed_server_frame(completed))
    (second,) = reader.close()

    assert (first.object_id, first.model) == ("resp_b", "gpt-4o-mini")
    assert (second.object_id, second.basis) == ("resp_a", Basis.ESTIMATED)
    # 400 bytes of text, four bytes a token.
    output = {quantity.meter: quantity.amount for quantity in second.items[0].quantities}[Meter.OUTPUT]
    assert output == Decimal(100)


def test_error_of_a_lane_ends_its_response_alone() -> None:
    reader = reader_of(CREATE | {"stream_id": "a"}, CREATE | {"stream_id": "b"})
    reader.feed_server_frame(lifecycle("response.created", "resp_a", lane="a"))
    reader.feed_server_frame(lifecycle("response.created", "resp_b", lane="b"))

    (ended,) = reader.feed_server_frame('{"type":"error","stream_id":"b","status":429,"error":{"message":"no"}}')
    (report,) = reports_of(reader.feed_server_frame(lifecycle("response.completed", "resp_a", lane="a", usage=USAGE)))

    assert isinstance(ended, UsageReported)
    assert (ended.report.object_id, ended.failed) == ("resp_b", True)
    assert (report.object_id, report.basis) == ("resp_a", Basis.REPORTED)


@pytest.mark.parametrize("error", ['{"type":"error","error":{}}', '{"type":"error","status":500,"error":{}}'])
def test_error_after_output_ends_the_response_with_an_estimate(error: str) -> None:
    reader = reader_of(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))
    reader.feed_server_frame(delta("x" * 400))

    (ended,) = reader.feed_server_frame(error)

    assert isinstance(ended, UsageReported)
    assert (ended.failed, ended.report.basis, ended.report.object_id) == (True, Basis.ESTIMATED, "resp_1")
    assert not reader.working


def test_client_error_does_not_end_a_response_that_runs() -> None:
    reader = reader_of(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))

    assert reader.feed_server_frame('{"type":"error","status":400,"error":{"message":"bad steer"}}') == ()
    (report,) = reports_of(reader.feed_server_frame(server("response.completed", "resp_1", usage=USAGE)))

    assert report.basis is Basis.REPORTED


def test_client_error_rejects_the_request_behind_a_response_that_runs() -> None:
    reader = reader_of(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))
    read_frame(RESPONSES_SOCKET, reader, json.dumps(CREATE))

    assert reader.feed_server_frame('{"type":"error","status":400,"error":{}}') == (WorkRejected(),)
    assert reader.working


def test_quota_of_the_account_is_an_event_of_its_own() -> None:
    reader = reader_of({"type": "response.create", "model": "gpt-5.4", "input": "hi"})

    assert reader.feed_server_frame('{"type":"codex.rate_limits","rate_limits":{}}') == (QuotaStated(),)
    assert reader.feed_server_frame('{"rate_limits":{},"type":"codex.rate_limits"}') == (QuotaStated(),)


def test_error_keeps_its_other_headers_without_the_quota() -> None:
    reader = reader_of({"type": "response.create", "model": "gpt-5.4", "input": "hi"})
    headers = '"headers":{"x-codex-primary-used-percent":"73.0","X-RateLimit-Remaining-Tokens":5,"retry-after":"2"}'

    quota, rejected = reader.feed_server_frame('{"type":"error","status":429,"error":{"code":"x"},' + headers + "}")

    assert quota == QuotaStated('{"type":"error","status":429,"error":{"code":"x"},"headers":{"retry-after":"2"}}')
    assert rejected == WorkRejected()


def test_error_keeps_no_header_that_no_http_response_has() -> None:
    """openai-python 3.57 reads the headers of `error`, Codex those of the event."""
    reader = reader_of({"type": "response.create", "model": "gpt-5.4", "input": "hi"})
    headers = '{"openai-organization":"acme","x-ratelimit-limit-requests":"9","Set-Cookie":"a=b","x-request-id":"r"}'

    quota, _ = reader.feed_server_frame(
        '{"type":"error","status":429,"error":{"code":"x","headers":' + headers + '},"headers":' + headers + "}"
    )

    kept = '{"x-request-id":"r"}'
    assert quota == QuotaStated(
        '{"type":"error","status":429,"error":{"code":"x","headers":' + kept + '},"headers":' + kept + "}"
    )


@pytest.mark.parametrize(
    ("error", "seconds"), [(BudgetReserved("wait"), "2"), (LimitReached("wait", 7, ()), "7"), (Overloaded("full"), "1")]
)
def test_refusal_of_a_frame_says_when_to_send_it_again(error: RequestError, seconds: str) -> None:
    event = json.loads(open_responses("", ()).refusal(error, ClientFrame(), "event_1"))

    assert event["headers"] == event["error"]["headers"] == {"retry-after": seconds}


def test_refusal_of_a_frame_that_would_be_refused_again_says_no_time() -> None:
    event = json.loads(open_responses("", ()).refusal(BudgetExceeded("spent"), ClientFrame(), "event_1"))

    assert "headers" not in event
    assert "headers" not in event["error"]


@pytest.mark.parametrize("headers", ['{"retry-after":"2"}', "{}", "null", "[]", "5"])
def test_error_without_a_quota_is_no_quota(headers: str) -> None:
    frame = '{"type":"error","status":429,"error":{},"headers":' + headers + "}"

    assert reader_of({"type": "response.create", "model": "gpt-5.4", "input": "hi"}).feed_server_frame(frame) == (
        WorkRejected(),
    )


def test_response_is_reported_once() -> None:
    reader = reader_of(CREATE)
    completed = server("response.completed", "resp_1", usage=USAGE)

    started, reported = reader.feed_server_frame(completed)

    assert started == WorkStarted("resp_1")
    assert isinstance(reported, UsageReported)
    assert reader.feed_server_frame(completed) == ()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param({"type": "nonsense"}, id="unknown type"),
        pytest.param({"type": "response.inject", "response_id": "resp_1"}, id="unknown response type"),
        pytest.param(
            {"type": "response.create", "response": {"model": "gpt-5.4"}, "previous_response_id": "resp_A"},
            id="reference beside the wrapper",
        ),
        pytest.param(
            {"type": "response.create", "response": {"model": "m"}, "tools": []}, id="tools beside the wrapper"
        ),
        pytest.param({"type": "response.steer", "input": "x"}, id="steer without a response"),
        pytest.param({"type": "response.steer", "previous_response_id": "resp_X", "input": "x"}, id="steer a stranger"),
    ],
)
def test_frame_that_could_start_unseen_work_is_rejected(frame: dict[str, object]) -> None:
    with pytest.raises(InvalidBody):
        read_frame(RESPONSES_SOCKET, reader_of(CREATE), json.dumps(frame))


def test_a_rejected_frame_leaves_no_work() -> None:
    reader = open_responses("", ())
    frame = read_frame(RESPONSES_SOCKET, reader, json.dumps(CREATE))

    refusal = json.loads(reader.refusal(ModelNotPriced("no price", param="model"), frame, "event_own"))

    assert refusal["error"]["code"] == "model_not_priced"
    assert refusal["status"] == 400
    assert not reader.working


def test_an_unfinished_response_is_estimated_at_close() -> None:
    reader = reader_of(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))
    reader.feed_server_frame(json.dumps({"type": "response.output_text.delta", "delta": "some words " * 20}))

    (report,) = reader.close()

    assert report.basis is Basis.ESTIMATED
    assert report.object_id == "resp_1"
    assert not reader.working


@given(frames=st.lists(st.text() | st.binary(), max_size=5))
def test_random_frames_of_a_provider_never_raise(frames: list[str | bytes]) -> None:
    reader = reader_of(CREATE)

    for frame in frames:
        reader.feed_server_frame(frame)

    reader.close()
