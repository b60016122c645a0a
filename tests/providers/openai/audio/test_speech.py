from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import request_body, response_body
from tornado_proxy.domain.errors import BadRequest, InvalidBody, UpstreamError
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.audio.endpoints import audio_endpoints
from tornado_proxy.providers.openai.audio.speech import ask_for_sse, media_type_of

EXACT = audio_endpoints()[0]
EDITS = EXACT.response_edits
ESTIMATING = audio_endpoints(exact_speech=False)[0]
MP3, SSE = ResponseHead(200, "audio/mpeg"), ResponseHead(200, "text/event-stream")

USAGE = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini-tts", "input": "Hello", "voice": "alloy"} | members).encode()


def stream(audio: bytes, *, size: int = 7, end: bool = True) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(audio[at : at + size]).decode()}
        for at in range(0, len(audio), size)
    ]
    if end:
        events.append({"type": "speech.audio.done", "usage": USAGE})
    return b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events)


def meters(report: UsageReport) -> dict[str, int]:
    return {q.meter.value: int(q.amount) for reading in report.items for q in reading.quantities}


@pytest.mark.parametrize("model", ["tts-1", "tts-1-hd", "tts-1-1106"])
def test_tts_1_is_charged_by_code_points_of_the_input_alone(model):
    body = request(model=model, input="Zoë 👩‍🚀!", instructions="Whisper.")
    parsed = EXACT.parse(RequestView(body, "application/json"))

    report = read_three_ways(lambda: EXACT.reader(parsed.facts, MP3), b"\xff\xf3" * 50)

    assert parsed.body is body
    assert parsed.facts.spends[0].meters == {Meter.INPUT_CHARACTERS}
    assert meters(report) == {"input_characters": 8}  # Z o ë space, woman, joiner, rocket, !
    assert report.basis is Basis.INFERRED


@pytest.mark.parametrize(
    ("text", "code_points"), [("\\ud83d\\ude00", 1), ("e\\u0301", 2), ("\\u00e9", 1), ("\\n", 1), ("", 0)]
)
def test_escapes_count_as_what_they_stand_for(text, code_points):
    body = f'{{"model":"tts-1","input":"{text}"}}'.encode()

    assert EXACT.parse(RequestView(body, "application/json")).facts.inferred[0].amount == code_points


def test_a_token_priced_model_is_asked_for_sse_and_the_client_gets_the_same_audio():
    body, content_type = request_body("speech")
    audio = response_body("speech")
    parsed = EXACT.parse(RequestView(body, content_type))
    edit = EDITS.body(parsed.facts, SSE)

    report = read_three_ways(lambda: EXACT.reader(parsed.facts, SSE), stream(audio, size=700))

    assert json.loads(parsed.body) == json.loads(body) | {"stream_format": "sse"}
    assert parsed.facts.usage_injected
    assert edit.feed(stream(audio, size=700)) + edit.close() == audio
    assert EDITS.content_type(parsed.facts, SSE) == "audio/mpeg"
    assert meters(report) == {"input_tokens": 14, "output_audio_tokens": 101}
    assert report.basis is Basis.REPORTED
    assert json.loads(report.raw or "") == USAGE


@given(audio=st.binary(max_size=60), size=st.integers(1, 20), cuts=st.lists(st.integers(0, 5000)))
def test_the_audio_is_the_same_wherever_the_stream_is_split(audio, size, cuts):
    facts = EXACT.parse(RequestView(request(), "")).facts
    edit = EDITS.body(facts, SSE)

    assert b"".join(map(edit.feed, pieces(stream(audio, size=size), cuts))) + edit.close() == audio


def test_audio_leaves_with_the_event_that_brings_it():
    edit = EDITS.body(EXACT.parse(RequestView(request(), "")).facts, SSE)
    first = stream(b"1234567", end=False)

    assert edit.feed(first) == b"1234567"


@pytest.mark.parametrize(
    "broken",
    [
        stream(b"abc", end=False),
        b"",
        stream(b"abc", end=False) + b'data: {"type":"error","error":{"message":"no"}}\n\n',
        b'data: {"type":"speech.audio.delta","audio":"*"}\n\n',
        b"data: rubbish\n\n",
    ],
)
def test_audio_that_is_not_whole_never_looks_complete(broken):
    edit = EDITS.body(EXACT.parse(RequestView(request(), "")).facts, SSE)

    with pytest.raises(UpstreamError):
        edit.feed(broken) + edit.close()


def test_a_stream_that_never_ends_an_event_is_broken_off():
    edit = EDITS.body(EXACT.parse(RequestView(request(), "")).facts, SSE)

    with pytest.raises(UpstreamError):
        edit.feed(b"data: " + b"A" * 65 * 1024 * 1024) + edit.feed(b"A")


def test_a_stream_that_the_client_asked_for_passes_as_it_is():
    body = request(stream_format="sse")
    parsed = EXACT.parse(RequestView(body, ""))

    assert parsed.body is body
    assert parsed.facts.stream
    assert EDITS.body(parsed.facts, SSE) is None
    assert EDITS.content_type(parsed.facts, SSE) is None
    assert meters(read(EXACT.reader(parsed.facts, SSE), [stream(b"abc")])) == {
        "input_tokens": 14,
        "output_audio_tokens": 101,
    }


def test_a_provider_that_ignores_the_wish_is_passed_on_and_estimated():
    facts = EXACT.parse(RequestView(request(), "")).facts

    assert EDITS.body(facts, MP3) is None
    assert EDITS.content_type(facts, MP3) is None
    assert read(EXACT.reader(facts, MP3), [b"x" * 16_000]).basis is Basis.ESTIMATED
    assert EDITS.body(facts, ResponseHead(400, "application/json")) is None


@pytest.mark.parametrize(
    ("response_format", "audio_bytes", "tokens", "method"),
    [
        pytest.param(None, 32_001, 41, "speech_audio_bytes", id="mp3: 16,000 bytes a second, 20 tokens a second"),
        pytest.param("pcm", 48_000, 20, "speech_audio_bytes", id="pcm: 48,000 bytes a second"),
        pytest.param("opus", 5_000, 40, "speech_characters", id="opus: 30 characters, 15 a second"),
    ],
)
def test_without_sse_the_tokens_are_estimated_and_the_method_is_named(response_format, audio_bytes, tokens, method):
    body = request(input="x" * 30, instructions="y" * 9, response_format=response_format)
    parsed = ESTIMATING.parse(RequestView(body, ""))

    report = read_three_ways(lambda: ESTIMATING.reader(parsed.facts, MP3), bytes(audio_bytes))

    assert parsed.body is body
    assert meters(report) == {"input_tokens": 10, "output_audio_tokens": tokens}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == method


def test_a_stream_that_breaks_is_estimated_from_the_audio_that_came():
    facts = EXACT.parse(RequestView(request(), "")).facts

    report = read(EXACT.reader(facts, SSE), [stream(bytes(16_000), size=8000, end=False)], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert 20 <= meters(report)["output_audio_tokens"] <= 21


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', b'{"stream_format":"sse","a":1}'),
        (b' {\n"a":1}', b' {"stream_format":"sse",\n"a":1}'),
        (b'{"a":1,"stream_format" : "audio"}', b'{"a":1,"stream_format" : "sse"}'),
        (b'{"stream_format":null,"a":1}', b'{"stream_format":"sse","a":1}'),
        (b'{"a":"\\"stream_format\\":\\"audio\\""}', b'{"stream_format":"sse","a":"\\"stream_format\\":\\"audio\\""}'),
        (
            b'{"a":{"stream_format":"audio"},"stream_format":"audio"}',
            b'{"a":{"stream_format":"audio"},"stream_format":"sse"}',
        ),
        (b'{"a":{"stream_format":"audio"}}', b'{"stream_format":"sse","a":{"stream_format":"audio"}}'),
        (b'{"stream\\u005fformat":"audio"}', None),
        (b'{"stream_format":"wav"}', None),
    ],
)
def test_the_splice_changes_nothing_else(body, expected):
    assert ask_for_sse(body) == expected


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [(None, "audio/mpeg"), ("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("x", "application/octet-stream")],
)
def test_media_types(response_format, expected):
    assert media_type_of(response_format) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":"x"}',
        b'{"model":"","input":"x"}',
        b'{"model":["tts-1"],"input":"x"}',
        b'{"model":"tts-1"}',
        b"[]",
        b"",
    ],
)
def test_a_request_without_model_or_input_is_refused(body):
    with pytest.raises(BadRequest):
        EXACT.parse(RequestView(body, "application/json"))


def test_a_model_given_twice_is_refused():
    with pytest.raises(InvalidBody):
        EXACT.parse(RequestView(b'{"model":"tts-1","model":"gpt-4o-mini-tts","input":"x"}', "application/json"))


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_reading_random_answers_raises_nothing(data, cuts, complete):
    for facts in (
        EXACT.parse(RequestView(request(), "")).facts,
        EXACT.parse(RequestView(request(model="tts-1"), "")).facts,
    ):
        for head in (SSE, MP3):
            for body in (data, b'data: {"type":"speech.audio.done","usage":' + data + b"}\n\n"):
                read(EXACT.reader(facts, head), pieces(body, cuts), complete=complete)
