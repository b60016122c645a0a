from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.chat import reader as chat_reader
from tornado_proxy.providers.openai.chat.endpoint import CHAT_ENDPOINTS, make_edit, make_reader, parse
from tornado_proxy.providers.openai.chat.reader import ChatStreamReader
from tornado_proxy.wire import sse

(CHAT,) = CHAT_ENDPOINTS
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")
FACTS = RequestFacts(model="gpt-4o-mini", body_bytes=400)


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]} | members).encode()


def stream(*chunks: dict[str, Any] | str) -> bytes:
    return "".join(f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks).encode()


def chunk(content: str | None = None, **members: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {"content": content}}]
    return {"id": "chatcmpl-1", "model": "gpt-4o-mini-2024-07-18", "choices": choices} | members


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def meters(report: UsageReport) -> dict[str, int]:
    return {q.meter.value: int(q.amount) for reading in report.items for q in reading.quantities}


def of_stream(data: bytes, facts: RequestFacts = FACTS) -> UsageReport:
    return read_three_ways(lambda: make_reader(facts, SSE), data)


def undated(found: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Expected lines name the priced model; the answer names its snapshot, `-2024-07-18` say."""
    return sorted((model[:-11] if model[-6:-5] == model[-3:-2] == "-" else model, *rest) for model, *rest in found)


@pytest.mark.parametrize("name", ["chat-audio-input", "chat-several-choices", "chat-stream-with-usage"])
def test_recorded_answers_come_to_the_expected_lines(name):
    parsed = parse(RequestView(*request_body(name)))
    head = SSE if "stream" in name else JSON

    report = read_three_ways(lambda: make_reader(parsed.facts, head), response_body(name))

    assert undated(lines([report])) == expected_lines(name)
    assert report.basis is Basis.REPORTED
    assert report.object_id is not None
    assert report.object_id.startswith("chatcmpl-")
    assert report.faults == ()


def test_a_recorded_stream_without_usage_is_estimated_by_the_named_method():
    body, content_type = request_body("chat-stream-without-usage")
    parsed = parse(RequestView(body, content_type))

    report = of_stream(response_body("chat-stream-without-usage"), parsed.facts)

    assert (report.basis, report.estimate_method) == (Basis.ESTIMATED, "utf8_bytes_div_4")
    # "Atlantic Ocean" are 14 bytes
    assert meters(report) == {"input_tokens": -(-len(body) // 4), "output_tokens": 4}
    assert report.items[0].model == "gpt-4o-mini-2024-07-18"
    assert report.items[0].terms.service_tier == "default"


# --- requests


def test_what_a_request_can_cost_is_told():
    facts = parse(RequestView(request(service_tier="flex"), "application/json")).facts

    assert (facts.model, facts.stream, facts.terms.service_tier) == ("gpt-4o-mini", False, "flex")
    (spend,) = facts.spends
    assert (spend.model, spend.terms.service_tier, spend.role) == ("gpt-4o-mini", "flex", None)
    assert spend.meters == {Meter.INPUT, Meter.OUTPUT}


def test_sound_must_have_a_price_in_and_out():
    spoken = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]

    assert Meter.INPUT_AUDIO in parse(RequestView(request(messages=spoken), "")).facts.spends[0].meters
    assert Meter.OUTPUT_AUDIO in parse(RequestView(request(modalities=["text", "audio"]), "")).facts.spends[0].meters


def test_a_text_about_sound_needs_no_price_for_sound():
    body = request(messages=[{"role": "user", "content": 'what is "input_audio"?'}], modalities=["text"])

    assert parse(RequestView(body, "")).facts.spends[0].meters == {Meter.INPUT, Meter.OUTPUT}


@pytest.mark.parametrize(
    "members",
    [
        {"model": "gpt-4o-search-preview"},
        {"model": "gpt-4o-mini-search-preview-2025-03-11"},
        {"model": "gpt-5-search-api"},
        {"web_search_options": {}},
    ],
)
def test_a_searching_model_is_charged_one_search_which_no_usage_tells(members):
    facts = parse(RequestView(request(**members), "")).facts

    report = read(make_reader(facts, JSON), [json.dumps({"usage": usage(5, 6)}).encode()])

    assert Meter.WEB_SEARCHES in facts.spends[0].meters
    assert meters(report) == {"input_tokens": 5, "output_tokens": 6, "web_searches": 1}
    assert report.basis is Basis.INFERRED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(request(stream="true"), '"stream" must be true or false', id="stream as text"),
        pytest.param(request(stream=1), '"stream" must be true or false', id="stream as number"),
        pytest.param(request(model=["a"]), '"model" must be text', id="model as list"),
        pytest.param(request(model=None), "name the model", id="model null"),
        pytest.param(request(modalities="audio"), '"modalities" must be a list', id="modalities as text"),
        pytest.param(request(service_tier=1), '"service_tier" must be text', id="tier as number"),
        pytest.param(request(stream=True, stream_options=[]), '"stream_options" must be an object', id="options"),
        pytest.param(request(stream=True, stream_options={"include_usage": 1}), '"include_usage" must be', id="asking"),
    ],
)
def test_a_body_that_another_reader_might_read_differently_is_refused(body, message):
    with pytest.raises(InvalidBody, match=message):
        parse(RequestView(body, "application/json"))


@pytest.mark.parametrize(
    "options",
    [
        b'"stream_options":{"include_usage":true},"stream_options":null',
        b'"stream_options":{"include_usage":true,"include_usage":false}',
        b'"stream_options":{"include_usage":true,"include\\u005fusage":null}',
    ],
)
def test_asking_for_usage_and_not_asking_in_one_body_is_refused(options):
    with pytest.raises(InvalidBody, match="twice"):
        parse(RequestView(b'{"model":"m","stream":true,' + options + b"}", ""))


# --- the splice


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        pytest.param(
            b'{ "model":"m","stream":true}',
            b'{"stream_options":{"include_usage":true}, "model":"m","stream":true}',
            id="no options",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options" : null}',
            b'{"model":"m","stream":true,"stream_options" : {"include_usage":true}}',
            id="null",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{ }}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true }}',
            id="empty",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
            id="another option",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_usage": false,"x":1}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage": true,"x":1}}',
            id="false",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_usage":null}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
            id="null inside",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"tools":[{"stream_options":{}}],"stream_options":{}}',
            b'{"model":"m","stream":true,"tools":[{"stream_options":{}}],"stream_options":{"include_usage":true}}',
            id="the same deeper in the body",
        ),
    ],
)
def test_a_stream_that_does_not_ask_for_usage_is_made_to_with_few_bytes(body, sent):
    parsed = parse(RequestView(body, "application/json"))

    assert parsed.body == sent
    assert parsed.facts.usage_injected
    assert parsed.facts.body_bytes == len(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(), id="no stream"),
        pytest.param(request(stream=False, stream_options=None), id="stream false"),
        pytest.param(request(stream=True, stream_options={"include_usage": True}), id="asked"),
    ],
)
def test_a_body_that_needs_no_splice_is_sent_as_it_came(body):
    parsed = parse(RequestView(body, "application/json"))

    assert parsed.body is body
    assert not parsed.facts.usage_injected


@given(
    content=st.text(max_size=20),
    options=st.none()
    | st.fixed_dictionaries({}, optional={"include_usage": st.none() | st.just(False), "x": st.text()}),
    indent=st.sampled_from([None, 2]),
)
def test_what_is_sent_is_the_body_that_also_asks_for_usage(content, options, indent):
    body = {"stream_options": options, "model": "m", "messages": [{"content": content}], "stream": True}

    sent = json.loads(parse(RequestView(json.dumps(body, indent=indent).encode(), "")).body)

    assert sent == {**body, "stream_options": {**(options or {}), "include_usage": True}}


def test_usage_is_hidden_only_where_it_was_asked_for_on_the_clients_behalf():
    asked_by_us = parse(RequestView(request(stream=True), "")).facts
    asked_by_client = parse(RequestView(request(stream=True, stream_options={"include_usage": True}), "")).facts

    assert make_edit(asked_by_us, SSE) is not None
    assert make_edit(asked_by_us, JSON) is None
    assert make_edit(asked_by_client, SSE) is None


# --- answers


def test_usage_is_read_wherever_it_stands_and_the_last_one_counts():
    data = stream(
        chunk("a", usage=usage(1, 1)), chunk("b", usage=None), chunk(None, usage=usage(10, 20)), chunk("c", usage={})
    )

    assert meters(of_stream(data)) == {"input_tokens": 10, "output_tokens": 20}


@pytest.mark.parametrize("written", ['"usage": {', '"usage"\t:\t{', '"us\\u0061ge":{'])
def test_usage_is_found_however_it_is_written(written):
    data = b'data: {"choices":[],' + written.encode() + b'"prompt_tokens":3,"completion_tokens":4}}\n\n'

    assert meters(of_stream(data)) == {"input_tokens": 3, "output_tokens": 4}


def test_usage_in_a_last_event_without_a_blank_line_is_read():
    data = stream(chunk("a"), {"choices": [], "usage": usage(3, 4)})

    assert meters(of_stream(data[:-2])) == {"input_tokens": 3, "output_tokens": 4}


def test_the_tier_of_any_chunk_is_kept_and_the_last_one_holds():
    data = stream(
        chunk("a", service_tier="auto"),
        chunk("b", service_tier="priority"),
        chunk("c", service_tier=None, usage=usage(1, 1)),
    )

    assert of_stream(data).items[0].terms.service_tier == "priority"


def test_usage_of_a_chunk_that_another_host_shapes_differently_is_read():
    data = stream({"id": 7, "model": "m", "choices": [{"delta": "text"}], "service_tier": "flex", "usage": usage(3, 4)})

    report = of_stream(data)

    assert meters(report) == {"input_tokens": 3, "output_tokens": 4}
    assert (report.items[0].model, report.items[0].terms.service_tier) == ("m", "flex")


def test_a_stream_that_broke_off_is_estimated_by_all_that_was_written_in_it():
    call = {"index": 0, "function": {"name": "look", "arguments": "x" * 36}}
    data = stream(
        chunk("\u00e9" * 10), chunk(refusal="no"), chunk(), chunk() | {"choices": [{"delta": {"tool_calls": [call]}}]}
    )

    report = read(make_reader(FACTS, SSE), [data, b'data: {"cho'], complete=False)

    assert report.basis is Basis.ESTIMATED
    # 20 bytes of text, 4 and 36 of a tool call; 400 bytes of request
    assert meters(report) == {"input_tokens": 100, "output_tokens": 15}


def test_choices_and_calls_without_content_count_nothing():
    empty = {"choices": [{"index": 0}, {"delta": {"tool_calls": [{"index": 0}, {"function": {}}]}}]}

    assert meters(of_stream(stream(chunk() | empty))) == {"input_tokens": 100}


def test_sound_without_usage_is_left_to_somebody_to_settle():
    data = stream(chunk() | {"choices": [{"delta": {"audio": {"data": "AAAA"}}}]})

    report = of_stream(data)

    assert report.basis is Basis.UNSETTLED
    assert "audio without usage" in report.faults[0]


@pytest.mark.parametrize("audio", [None, {"id": "a", "transcript": "x"}])
def test_a_delta_with_or_without_sound_is_read(audio):
    data = stream(chunk("a") | {"choices": [{"delta": {"content": "abcd", "audio": audio}}]}, chunk(usage=usage(1, 2)))

    assert of_stream(data).basis is Basis.REPORTED


def test_an_error_in_place_of_an_answer_is_free_and_one_in_the_middle_is_estimated():
    error = {"error": {"message": "overloaded", "type": "server_error"}}

    assert of_stream(stream(error)).basis is Basis.FREE
    assert of_stream(stream(chunk("abcd"), error)).basis is Basis.ESTIMATED


def test_a_stream_of_which_nothing_came_is_not_free():
    report = read(make_reader(FACTS, SSE), [], complete=False)

    assert (report.basis, meters(report)) == (Basis.ESTIMATED, {"input_tokens": 100})


@pytest.mark.parametrize("body", [b"{}", b'{"usage":null}', b'{"usage":{}}', b'{"usage":5}'])
def test_an_answer_without_usage_is_estimated_never_nothing(body):
    report = read_three_ways(lambda: make_reader(FACTS, JSON), body)

    assert report.basis is Basis.ESTIMATED
    assert meters(report)["input_tokens"] == 100


def test_an_answer_that_is_no_json_is_estimated_and_says_so():
    report = read(make_reader(FACTS, JSON), [b'{"usage":{"prompt_'], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert report.faults


@pytest.mark.parametrize("head", [ResponseHead(400, "application/json"), ResponseHead(500, "text/event-stream")])
def test_an_error_status_is_free_whatever_the_body_says(head):
    report = read(CHAT.usage_reader(FACTS, head), [json.dumps({"usage": usage(5, 5)}).encode()])

    assert (report.basis, report.items) == (Basis.FREE, ())


def test_parts_that_are_more_than_their_whole_are_left_to_somebody_to_settle():
    stated = usage(5, 6) | {"prompt_tokens_details": {"cached_tokens": 9}}

    report = read(make_reader(FACTS, JSON), [json.dumps({"usage": stated}).encode()])

    assert report.basis is Basis.UNSETTLED
    assert report.faults
    assert all(q.amount > 0 for q in report.items[0].quantities)


def test_an_event_too_large_to_be_read_is_told_and_nothing_grows(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    begun = make_reader(FACTS, SSE)

    report = read(begun, [stream(chunk("abcd")), *[b"x" * 600] * 10])

    assert report.basis is Basis.ESTIMATED
    assert "too large" in report.faults[0]


@given(st.binary(max_size=300), st.sampled_from([JSON, SSE]))
def test_no_bytes_make_a_reader_raise(data, head):
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
def test_no_shape_of_an_answer_makes_a_reader_raise(body):
    read(make_reader(FACTS, SSE), [stream(body)])
    read(make_reader(FACTS, JSON), [json.dumps(body).encode()])


@given(st.lists(st.integers(0, 5000)))
def test_cuts_do_not_change_what_is_read(cuts):
    data = response_body("chat-stream-with-usage")

    assert read(make_reader(FACTS, SSE), pieces(data, cuts)) == read(make_reader(FACTS, SSE), [data])


def test_the_endpoint_reads_and_edits():
    assert (CHAT.path, CHAT.method, CHAT.charged) == ("/v1/chat/completions", "POST", True)
    assert CHAT.response_edits.body is make_edit


_FIRST = (
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
        pytest.param('[{"index":0,"delta":{"content":"x","refusal":"no, sorry"}}]', id="a refusal beside"),
        pytest.param(
            '[{"index":0,"delta":{"content":"x","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]',
            id="a tool call beside",
        ),
        pytest.param('[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}', id="usage beside"),
        pytest.param('[{"index":0,"delta":{"content":"x"}}],"service_tier":"flex"', id="a tier at last"),
    ],
)
def test_a_chunk_that_is_not_parsed_counts_as_one_that_is(choices, monkeypatch):
    event = f'data: {{"id":"c1","model":"gpt-4o-mini","choices":{choices}}}\n\n'.encode()

    def report():
        reading = ChatStreamReader(FACTS)
        reading.feed(_FIRST + event * 50 + event.replace(b'"c1"', b'"c2"') + event * 3)
        reading.close(complete=False)
        return reading.result()

    quickly = report()
    monkeypatch.setattr(chat_reader, "find_shape", lambda block: None)
    parsed = report()

    assert quickly == parsed
