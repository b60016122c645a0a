from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.reports import amounts
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import request_body, response_body
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.chat import reader as chat_reader
from tornado_proxy.providers.openai.chat.endpoint import make_reader, parse
from tornado_proxy.providers.openai.chat.reader import ChatStreamReader
from tornado_proxy.wire import sse

JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")
FACTS = RequestFacts(model="gpt-4o-mini", body_bytes=400)


def stream(*chunks: dict[str, Any] | str) -> bytes:
    return "".join(f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks).encode()


def chunk(content: str | None = None, **members: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {"content": content}}]
    return {"id": "chatcmpl-1", "model": "gpt-4o-mini-2024-07-18", "choices": choices} | members


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def report_stream(data: bytes, facts: RequestFacts = FACTS) -> UsageReport:
    return read_three_ways(lambda: make_reader(facts, SSE), data)


def test_a_recorded_stream_without_usage_is_estimated_by_a_named_method():
    body, content_type = request_body("chat-stream-without-usage")
    parsed = parse(RequestView(body, content_type))

    report = report_stream(response_body("chat-stream-without-usage"), parsed.facts)

    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "utf8_bytes_div_4")
    # Four bytes a token, rounded up: the response "Atlantic Ocean" is 14 bytes.
    assert amounts(report) == {"input_tokens": -(-len(body) // 4), "output_tokens": 4}
    assert report.items[0].model == "gpt-4o-mini-2024-07-18"
    assert report.items[0].terms.service_tier == "default"


def test_usage_is_read_from_any_chunk_and_the_last_one_counts():
    data = stream(
        chunk("a", usage=usage(1, 1)), chunk("b", usage=None), chunk(None, usage=usage(10, 20)), chunk("c", usage={})
    )

    assert amounts(report_stream(data)) == {"input_tokens": 10, "output_tokens": 20}


@pytest.mark.parametrize("written", ['"usage": {', '"usage"\t:\t{', '"us\\u0061ge":{'])
def test_usage_is_found_with_any_spacing_or_escape(written):
    data = b'data: {"choices":[],' + written.encode() + b'"prompt_tokens":3,"completion_tokens":4}}\n\n'

    assert amounts(report_stream(data)) == {"input_tokens": 3, "output_tokens": 4}


def test_usage_in_a_last_event_without_a_blank_line_is_read():
    data = stream(chunk("a"), {"choices": [], "usage": usage(3, 4)})

    assert amounts(report_stream(data[:-2])) == {"input_tokens": 3, "output_tokens": 4}


def test_the_last_tier_that_a_chunk_states_counts():
    data = stream(
        chunk("a", service_tier="auto"),
        chunk("b", service_tier="priority"),
        chunk("c", service_tier=None, usage=usage(1, 1)),
    )

    assert report_stream(data).items[0].terms.service_tier == "priority"


def test_usage_is_read_from_a_chunk_that_another_host_shapes_differently():
    # The id is a number and the delta a text: the chunk does not decode to the expected struct.
    data = stream({"id": 7, "model": "m", "choices": [{"delta": "text"}], "service_tier": "flex", "usage": usage(3, 4)})

    report = report_stream(data)

    assert amounts(report) == {"input_tokens": 3, "output_tokens": 4}
    assert (report.items[0].model, report.items[0].terms.service_tier) == ("m", "flex")


def test_an_incomplete_stream_is_estimated_by_its_text_and_tool_calls():
    call = {"index": 0, "function": {"name": "look", "arguments": "x" * 36}}
    data = stream(
        chunk("\u00e9" * 10), chunk(refusal="no"), chunk(), chunk() | {"choices": [{"delta": {"tool_calls": [call]}}]}
    )

    report = read(make_reader(FACTS, SSE), [data, b'data: {"cho'], complete=False)

    assert report.basis is Basis.ESTIMATED
    # Output: 20 bytes of text, 4 and 36 of a tool call.  Input: 400 bytes of request.
    assert amounts(report) == {"input_tokens": 100, "output_tokens": 15}


def test_choices_and_tool_calls_without_content_count_no_output():
    empty = {"choices": [{"index": 0}, {"delta": {"tool_calls": [{"index": 0}, {"function": {}}]}}]}

    assert amounts(report_stream(stream(chunk() | empty))) == {"input_tokens": 100}


def test_audio_without_usage_is_unsettled():
    data = stream(chunk() | {"choices": [{"delta": {"audio": {"data": "AAAA"}}}]})

    report = report_stream(data)

    assert report.basis is Basis.UNSETTLED
    assert "audio without usage" in report.faults[0]


@pytest.mark.parametrize("audio", [None, {"id": "a", "transcript": "x"}])
def test_a_delta_with_or_without_audio_is_read(audio):
    data = stream(chunk("a") | {"choices": [{"delta": {"content": "abcd", "audio": audio}}]}, chunk(usage=usage(1, 2)))

    assert report_stream(data).basis is Basis.REPORTED


def test_usage_in_an_error_chunk_is_charged():
    error = {"error": {"message": "overloaded"}, "choices": [], "usage": usage(100, 7)}

    for data in (stream(chunk("abcd"), error), stream(error)):
        report = report_stream(data)
        assert (report.basis, amounts(report)) == (Basis.REPORTED, {"input_tokens": 100, "output_tokens": 7})


def test_an_error_before_the_first_chunk_is_free_and_a_later_one_is_estimated():
    error = {"error": {"message": "overloaded", "type": "server_error"}}

    assert report_stream(stream(error)).basis is Basis.FREE
    assert report_stream(stream(chunk("abcd"), error)).basis is Basis.ESTIMATED


def test_an_empty_stream_is_estimated_not_free():
    report = read(make_reader(FACTS, SSE), [], complete=False)

    assert (report.basis, amounts(report)) == (Basis.ESTIMATED, {"input_tokens": 100})


def test_an_event_that_is_too_large_is_a_fault_and_not_buffered(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    report = read(make_reader(FACTS, SSE), [stream(chunk("abcd")), *[b"x" * 600] * 10])

    assert report.basis is Basis.ESTIMATED
    assert "too large" in report.faults[0]


@given(st.binary(max_size=300), st.sampled_from([JSON, SSE]))
def test_random_bytes_never_make_a_reader_raise(data, head):
    read(make_reader(FACTS, head), [b"data: ", data, b"\n\n", data])


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["usage", "choices", "delta", "id", "model", "error", "prompt_tokens"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["usage", "choices", "id", "model", "service_tier", "error"]), JSONISH))
def test_random_members_never_make_a_reader_raise(body):
    read(make_reader(FACTS, SSE), [stream(body)])
    read(make_reader(FACTS, JSON), [json.dumps(body).encode()])


@given(st.lists(st.integers(0, 5000)))
def test_cuts_do_not_change_the_report(cuts):
    data = response_body("chat-stream-with-usage")

    assert read(make_reader(FACTS, SSE), pieces(data, cuts)) == read(make_reader(FACTS, SSE), [data])


FIRST_CHUNK = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param('[{"index":0,"delta":{"content":"plain words"}}],"usage":null', id="plain"),
        pytest.param('[{"index":0,"delta":{"content":"padded"}}],"obfuscation":"a1b2"', id="padding"),
        pytest.param('[{"index":0,"delta":{"content":"größer \u65e5\u672c"}}]', id="not ASCII"),
        pytest.param('[{"index":0,"delta":{"content":"a \\"quoted\\" word\\n"}}]', id="escapes"),
        pytest.param('[{"index":0,"delta":{"content":"one"}},{"index":1,"delta":{"content":"two"}}]', id="two choices"),
        pytest.param('[{"index":0,"delta":{"content":"x","refusal":"no, sorry"}}]', id="a refusal as well"),
        pytest.param(
            '[{"index":0,"delta":{"content":"x","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]',
            id="a tool call as well",
        ),
        pytest.param('[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}', id="usage as well"),
        pytest.param('[{"index":0,"delta":{"content":"x"}}],"service_tier":"flex"', id="a tier at the end"),
    ],
)
def test_text_counted_without_parsing_equals_text_counted_by_parsing(choices, monkeypatch):
    event = f'data: {{"id":"c1","model":"gpt-4o-mini","choices":{choices}}}\n\n'.encode()

    def report():
        reader = ChatStreamReader(FACTS)
        reader.feed(FIRST_CHUNK + event * 50 + event.replace(b'"c1"', b'"c2"') + event * 3)
        reader.close(complete=False)
        return reader.result()

    counted = report()
    # Without shapes every chunk is parsed.
    monkeypatch.setattr(chat_reader, "find_shape", lambda block: None)
    parsed = report()

    assert counted == parsed
