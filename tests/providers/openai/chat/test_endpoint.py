from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.costs import subtotal
from tests.providers.openai.reports import amounts, undated
from tests.providers.reading import read, read_three_ways
from tests.providers.recorded import expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.chat.endpoint import CHAT_ENDPOINTS, make_edit, make_reader, parse
from tornado_proxy.providers.shared.response_readers import make_usage_reader

(CHAT,) = CHAT_ENDPOINTS
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")
FACTS = RequestFacts(model="gpt-4o-mini", body_bytes=400)


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]} | members).encode()


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@pytest.mark.parametrize("name", ["chat-audio-input", "chat-several-choices", "chat-stream-with-usage"])
def test_recorded_responses_give_the_expected_lines(name):
    parsed = parse(RequestView(*request_body(name)))
    head = SSE if "stream" in name else JSON

    report = read_three_ways(lambda: make_reader(parsed.facts, head), response_body(name))

    assert undated(lines([report])) == expected_lines(name)
    assert report.basis is Basis.REPORTED
    assert report.object_id is not None
    assert report.object_id.startswith("chatcmpl-")
    assert report.faults == ()


def test_a_request_spends_on_its_model_and_tier():
    facts = parse(RequestView(request(service_tier="flex"), "application/json")).facts

    assert (facts.model, facts.stream, facts.terms.service_tier) == ("gpt-4o-mini", False, "flex")
    (spend,) = facts.spends
    assert (spend.model, spend.terms.service_tier, spend.role) == ("gpt-4o-mini", "flex", None)
    assert spend.meters == {Meter.INPUT, Meter.OUTPUT}


def test_a_parameter_of_a_function_is_text():
    schema = {"type": "object", "properties": {"input_audio": {"type": "string"}, "file": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "save", "parameters": schema}}]
    audio = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}

    facts = parse(RequestView(request(tools=tools), "application/json")).facts
    with_audio = request(tools=tools, messages=[{"role": "user", "content": [audio]}])

    assert facts.work.text_only
    assert facts.spends[0].meters == {Meter.INPUT, Meter.OUTPUT}
    assert Meter.INPUT_AUDIO in parse(RequestView(with_audio, "application/json")).facts.spends[0].meters


def test_names_in_repeated_tools_count_as_content():
    schema = b'{"type":"object","properties":{"input_audio":{"type":"string"}}}'
    tools = b'"tools":[{"type":"function","function":{"name":"save","parameters":%b}}]' % schema
    body = b'{"model":"gpt-4o-mini","messages":[],%b,%b}' % (tools, tools)

    facts = parse(RequestView(body, "application/json")).facts

    assert not facts.work.text_only
    assert facts.spends[0].meters == {Meter.INPUT, Meter.OUTPUT, Meter.INPUT_AUDIO}


@pytest.mark.parametrize("number", [4, 4.0, "4"])
def test_a_request_can_cost_each_of_its_choices_however_their_number_is_written(number: object) -> None:
    work = parse(RequestView(request(n=number, max_completion_tokens=50), "application/json")).facts.work

    assert (work.choices, work.output_tokens) == (4, 200)


@pytest.mark.parametrize(
    ("split", "cost"),
    [
        pytest.param(None, "0.0055", id="all for twelve hours, as the request asks"),
        pytest.param({"ttl_12h_tokens": 400, "ttl_30m_tokens": 1600}, "0.0035", id="as usage states"),
    ],
)
def test_a_chat_cache_write_costs_the_price_of_its_lifetime(split, cost):
    # gpt-6.1-terra, USD per million: output 5, write for 30 minutes 1.25, for 12 hours 2.5.
    facts = parse(RequestView(request(model="gpt-6.1-terra", prompt_cache_options={"ttl": "12h"}), "")).facts
    details = {"cache_write_tokens": 2000, "cache_write_tokens_details": split}
    stated = {"prompt_tokens": 2000, "prompt_tokens_details": details, "completion_tokens": 100}
    body = json.dumps({"id": "chatcmpl-1", "model": "gpt-6.1-terra", "usage": stated}).encode()

    assert subtotal(read(make_reader(facts, JSON), [body]), facts) == Decimal(cost)


def test_audio_input_and_output_need_a_price():
    messages = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]

    assert Meter.INPUT_AUDIO in parse(RequestView(request(messages=messages), "")).facts.spends[0].meters
    assert Meter.OUTPUT_AUDIO in parse(RequestView(request(modalities=["text", "audio"]), "")).facts.spends[0].meters


def test_a_text_about_audio_needs_no_price_for_audio():
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
def test_a_search_model_is_charged_one_search_although_usage_states_none(members):
    facts = parse(RequestView(request(**members), "")).facts

    report = read(make_reader(facts, JSON), [json.dumps({"usage": usage(5, 6)}).encode()])

    assert Meter.WEB_SEARCHES in facts.spends[0].meters
    assert amounts(report) == {"input_tokens": 5, "output_tokens": 6, "web_searches": 1}
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
        pytest.param(
            request(stream=True, stream_options=[]), '"stream_options" must be an object', id="options as list"
        ),
        pytest.param(
            request(stream=True, stream_options={"include_usage": 1}),
            '"include_usage" must be',
            id="option as number",
        ),
    ],
)
def test_a_member_of_the_wrong_type_is_rejected(body, message):
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
def test_repeated_stream_options_are_rejected(options):
    with pytest.raises(InvalidBody, match="twice"):
        parse(RequestView(b'{"model":"m","stream":true,' + options + b"}", ""))


@pytest.mark.parametrize(
    ("body", "sent", "prompt_bytes"),
    [
        pytest.param(
            b'{ "model":"m","stream":true}',
            b'{"stream_options":{"include_usage":true}, "model":"m","stream":true}',
            28,
            id="no options",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options" : null}',
            b'{"model":"m","stream":true,"stream_options" : {"include_usage":true}}',
            29,
            id="null",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{ }}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true }}',
            27,
            id="empty",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
            27,
            id="another option",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_usage": false,"x":1}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage": true,"x":1}}',
            27,
            id="false",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"stream_options":{"include_usage":null}}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
            27,
            id="null inside",
        ),
        pytest.param(
            b'{"model":"m","stream":true,"tools":[{"stream_options":{}}],"stream_options":{}}',
            b'{"model":"m","stream":true,"tools":[{"stream_options":{}}],"stream_options":{"include_usage":true}}',
            59,
            id="another one deeper in the body",
        ),
    ],
)
def test_a_stream_request_without_usage_gets_a_splice_that_asks_for_it(body, sent, prompt_bytes):
    parsed = parse(RequestView(body, "application/json"))

    assert parsed.body == sent
    assert parsed.facts.usage_injected
    # An estimate is the same at a second proxy, which receives what the first one sends.
    assert parsed.facts.body_bytes == prompt_bytes
    assert parse(RequestView(sent, "application/json")).facts.body_bytes == prompt_bytes


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(request(), id="no stream"),
        pytest.param(request(stream=False, stream_options=None), id="stream false"),
        pytest.param(request(stream=True, stream_options={"include_usage": True}), id="asks already"),
    ],
)
def test_a_body_that_needs_no_splice_is_sent_unchanged(body):
    parsed = parse(RequestView(body, "application/json"))

    assert parsed.body is body
    assert not parsed.facts.usage_injected


@given(
    content=st.text(max_size=20),
    options=st.none()
    | st.fixed_dictionaries({}, optional={"include_usage": st.none() | st.just(False), "x": st.text()}),
    indent=st.sampled_from([None, 2]),
)
def test_the_splice_only_adds_include_usage(content, options, indent):
    body = {"stream_options": options, "model": "m", "messages": [{"content": content}], "stream": True}

    sent = json.loads(parse(RequestView(json.dumps(body, indent=indent).encode(), "")).body)

    assert sent == {**body, "stream_options": {**(options or {}), "include_usage": True}}


def test_usage_is_hidden_only_if_the_proxy_asked_for_it():
    by_proxy = parse(RequestView(request(stream=True), "")).facts
    by_client = parse(RequestView(request(stream=True, stream_options={"include_usage": True}), "")).facts

    assert make_edit(by_proxy, SSE) is not None
    assert make_edit(by_proxy, JSON) is None
    assert make_edit(by_client, SSE) is None


@pytest.mark.parametrize("body", [b"{}", b'{"usage":null}', b'{"usage":{}}', b'{"usage":5}'])
def test_a_response_without_usage_is_estimated_not_free(body):
    report = read_three_ways(lambda: make_reader(FACTS, JSON), body)

    assert report.basis is Basis.ESTIMATED
    assert amounts(report)["input_tokens"] == 100


def test_a_response_that_is_no_json_is_estimated_with_a_fault():
    report = read(make_reader(FACTS, JSON), [b'{"usage":{"prompt_'], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert report.faults


@pytest.mark.parametrize("head", [ResponseHead(400, "application/json"), ResponseHead(500, "text/event-stream")])
def test_an_error_status_is_free_even_if_the_body_states_usage(head):
    report = read(make_usage_reader(CHAT, FACTS, head), [json.dumps({"usage": usage(5, 5)}).encode()])

    assert (report.basis, report.items) == (Basis.FREE, ())


def test_parts_that_exceed_their_total_are_unsettled():
    stated = usage(5, 6) | {"prompt_tokens_details": {"cached_tokens": 9}}

    report = read(make_reader(FACTS, JSON), [json.dumps({"usage": stated}).encode()])

    assert report.basis is Basis.UNSETTLED
    assert report.faults
    assert all(q.amount > 0 for q in report.items[0].quantities)


def test_the_endpoint_is_charged_and_edits_its_response():
    assert (CHAT.path, CHAT.method, CHAT.charged) == ("/v1/chat/completions", "POST", True)
    assert CHAT.response_edits.body is make_edit


def _log_probabilities(tokens: int) -> dict[str, Any]:
    entry = {"token": " so", "logprob": -0.25, "bytes": [32, 115, 111]}
    return {"content": [entry | {"top_logprobs": [entry] * 20} for _ in range(tokens)], "refusal": None}


def test_usage_of_a_response_of_eight_megabytes_is_read():
    message = {"role": "assistant", "content": " so" * 8000}
    choices = [{"index": 0, "message": message, "logprobs": _log_probabilities(8000)}]
    body = json.dumps({"id": "c1", "model": "gpt-4o-mini", "choices": choices, "usage": usage(10, 8000)}).encode()
    assert len(body) > 8_000_000

    report = read(make_reader(FACTS, JSON), [body[at : at + 65_536] for at in range(0, len(body), 65_536)])

    assert (report.basis, report.object_id, amounts(report)) == (
        Basis.REPORTED,
        "c1",
        {"input_tokens": 10, "output_tokens": 8000},
    )


@pytest.mark.parametrize("tokens", [10, 600])
def test_an_estimate_counts_text_and_not_log_probabilities(tokens):
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    choices = [
        {"message": {"content": "four" * tokens, "tool_calls": None}, "logprobs": _log_probabilities(tokens)},
        {"message": {"content": None, "refusal": "no no no no", "tool_calls": [call]}},
    ]
    body = json.dumps({"id": "c1", "choices": choices, "model": "gpt-4o-mini"}).encode()

    # Four bytes a token: the text, a refusal of 11 bytes, a call of 6.  The request has 400 bytes.
    expected = {"input_tokens": 100, "output_tokens": tokens + 5}
    assert amounts(read(make_reader(FACTS, JSON), [body])) == expected
    assert amounts(read(make_reader(FACTS, JSON), [body[:-1]], complete=False)) == expected


@pytest.mark.parametrize("media_type", ["", "text/plain"])
def test_injected_usage_is_hidden_in_a_stream_without_its_media_type(media_type):
    facts = parse(RequestView(request(stream=True), "")).facts
    chunks = (
        b'data: {"choices":[{}],"usage":null}\n\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
    )
    edit = make_edit(facts, ResponseHead(200, media_type))

    assert edit is not None
    assert edit.feed(chunks) + edit.close() == b'data: {"choices":[{}]}\n\ndata: [DONE]\n\n'
    whole = make_edit(facts, ResponseHead(200, media_type))
    assert whole is not None
    assert whole.feed(b'{"usage":null}') + whole.close() == b'{"usage":null}'
