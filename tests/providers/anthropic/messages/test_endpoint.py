from __future__ import annotations

import json
import tracemalloc

import pytest

from tests.providers.anthropic.streams import JSON
from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.request import RequestFacts, WorkLimits
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.anthropic.messages.endpoint import make_reader

FACTS = RequestFacts(model="claude-sonnet-5", body_bytes=400)
USAGE = {"input_tokens": 12, "output_tokens": 3}
MESSAGE = {"id": "msg_1", "model": "claude-sonnet-5", "content": [{"type": "text", "text": "hi"}], "usage": USAGE}


@pytest.mark.parametrize("chunk_bytes", [20_000, 1_000_000])
def test_usage_of_a_large_message_is_read_in_bounded_memory(chunk_bytes: int) -> None:
    content = [{"type": "text", "text": "so on " * 3_000_000}]
    body = json.dumps({**MESSAGE, "content": content}).encode()

    tracemalloc.start()
    chunks = (body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes))
    report = read(make_reader(FACTS, JSON), chunks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert report == read(make_reader(FACTS, JSON), [json.dumps(MESSAGE).encode()])
    assert (report.basis, report.model, report.object_id) == (Basis.REPORTED, "claude-sonnet-5", "msg_1")
    assert peak < 6_000_000  # of 18 MB


def test_message_that_broke_off_is_an_estimate_by_both_lengths() -> None:
    body = json.dumps(MESSAGE).encode()[:80]

    report = read_three_ways(lambda: make_reader(FACTS, JSON), body)

    assert report.basis is Basis.ESTIMATED
    # 400 and 80 bytes at four bytes a token
    amounts = [(each.meter, each.amount) for each in report.items[0].quantities]
    assert amounts == [(Meter.INPUT, 100), (Meter.OUTPUT, 20)]


def test_response_that_is_no_message_costs_no_more_output_than_the_request_allows() -> None:
    facts = RequestFacts(model="claude-sonnet-5", body_bytes=400, work=WorkLimits(output_tokens=5))

    report = read(make_reader(facts, JSON), [b"<html>" + b"x" * 5000])

    assert [(each.meter, each.amount) for each in report.items[0].quantities] == [(Meter.INPUT, 100), (Meter.OUTPUT, 5)]


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 3, "completion_tokens": 4}, {"input_tokens": None}])
def test_usage_without_a_count_of_messages_is_unsettled(usage: dict[str, object]) -> None:
    report = read(make_reader(FACTS, JSON), [json.dumps({**MESSAGE, "usage": usage}).encode()])

    assert report.basis is Basis.UNSETTLED
    assert report.faults == ("usage states none of the counts of a message",)
