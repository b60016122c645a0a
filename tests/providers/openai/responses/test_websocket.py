"""The Responses API over a WebSocket, frame by frame."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import reports_of
from tornado_proxy.domain.errors import InvalidBody, ModelNotPriced
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import WorkRejected, WorkStarted
from tornado_proxy.providers.openai.responses.websocket import ResponsesSocketReader, open_responses

CREATE = {"type": "response.create", "model": "gpt-5.4", "input": "hi", "service_tier": "flex"}
USAGE = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


def asked(*frames: dict[str, object]) -> ResponsesSocketReader:
    reader = open_responses("", ())
    for frame in frames:
        reader.read_client_frame(json.dumps(frame))
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
def test_a_request_is_read_where_it_stands(frame: dict[str, object]) -> None:
    read = open_responses("", ()).read_client_frame(json.dumps({**frame, "event_id": "mine"}))

    assert read.event_id == "mine"
    assert read.facts is not None
    assert (read.facts.model, read.facts.terms.service_tier) == ("gpt-5.4", "flex")
    assert [spend.model for spend in read.spends] == ["gpt-5.4"]


def test_an_earlier_response_is_a_reference() -> None:
    read = open_responses("", ()).read_client_frame(json.dumps({**CREATE, "previous_response_id": "resp_0"}))

    assert read.references == ("resp_0",)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("[]", id="no object"),
        pytest.param("{", id="no JSON"),
        pytest.param('{"model":"gpt-5.4"}', id="no type"),
        pytest.param('{"type":"response.create"}', id="no model"),
        pytest.param('{"type":"a","type":"response.create","model":"gpt-5.4"}', id="two types"),
        pytest.param('{"type":"response.create","model":"a","response":{"model":"b"}}', id="two requests"),
        pytest.param('{"type":"response.create","response":{"model":"a","model":"b"}}', id="two models"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(frame: str) -> None:
    with pytest.raises(InvalidBody):
        open_responses("", ()).read_client_frame(frame)


def test_responses_end_in_their_order_each_with_its_own_usage() -> None:
    reader = asked(CREATE, {**CREATE, "service_tier": "priority"})

    assert reader.feed_server_frame(server("response.created", "resp_1")) == (WorkStarted("resp_1"),)
    completed = server("response.completed", "resp_1", usage=USAGE, service_tier="flex")
    (first,) = reports_of(reader.feed_server_frame(completed))
    assert reader.feed_server_frame(server("response.created", "resp_2")) == (WorkStarted("resp_2"),)
    incomplete = server("response.incomplete", "resp_2", usage=USAGE, service_tier="priority")
    (second,) = reports_of(reader.feed_server_frame(incomplete))

    assert [report.object_id for report in (first, second)] == ["resp_1", "resp_2"]
    assert [report.items[0].terms.service_tier for report in (first, second)] == ["flex", "priority"]
    amounts = {one.meter: one.amount for one in first.items[0].quantities if one.amount}
    assert amounts == {Meter.INPUT: Decimal(10), Meter.OUTPUT: Decimal(4)}
    assert not reader.working


def test_a_request_that_the_provider_turns_down_is_over() -> None:
    reader = asked(CREATE)

    events = reader.feed_server_frame('{"type":"error","status":400,"error":{"message":"no"}}')

    assert events == (WorkRejected(),)
    assert not reader.working


def test_a_refused_frame_is_not_waited_for() -> None:
    reader = open_responses("", ())
    frame = reader.read_client_frame(json.dumps(CREATE))

    said = json.loads(reader.refusal(ModelNotPriced("no price", param="model"), frame, "event_own"))

    assert said["error"]["code"] == "model_not_priced"
    assert said["status"] == 400
    assert not reader.working


def test_what_the_connection_leaves_open_is_estimated() -> None:
    reader = asked(CREATE)
    reader.feed_server_frame(server("response.created", "resp_1"))
    reader.feed_server_frame(json.dumps({"type": "response.output_text.delta", "delta": "some words " * 20}))

    (report,) = reader.close()

    assert report.basis is Basis.ESTIMATED
    assert report.object_id == "resp_1"
    assert not reader.working


@given(frames=st.lists(st.text() | st.binary(), max_size=5))
def test_no_frame_of_a_provider_makes_it_raise(frames: list[str | bytes]) -> None:
    reader = asked(CREATE)

    for frame in frames:
        reader.feed_server_frame(frame)

    reader.close()
