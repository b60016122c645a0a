from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.audio.speech_streams import USAGE, speech_stream
from tests.providers.openai.reports import amounts
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import request_body, response_body
from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.usage import Basis, Meter
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.audio.endpoints import audio_endpoints
from tornado_proxy.providers.openai.audio.speech import ask_for_sse, media_type_of

EXACT = audio_endpoints()[0]
EDITS = EXACT.response_edits
ESTIMATING = audio_endpoints(exact_speech=False)[0]
MP3, SSE = ResponseHead(200, "audio/mpeg"), ResponseHead(200, "text/event-stream")


def request(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini-tts", "input": "Hello", "voice": "alloy"} | members).encode()


@pytest.mark.parametrize("model", ["tts-1", "tts-1-hd", "tts-1-1106"])
def test_tts_1_is_charged_only_by_the_code_points_of_its_input(model):
    body = request(model=model, input="Zoë 👩‍🚀!", instructions="Whisper.")
    parsed = EXACT.parse(RequestView(body, "application/json"))

    report = read_three_ways(lambda: EXACT.reader(parsed.facts, MP3), b"\xff\xf3" * 50)

    assert parsed.body is body
    assert parsed.facts.spends[0].meters == {Meter.INPUT_CHARACTERS}
    assert amounts(report) == {"input_characters": 8}  # Z o ë space, woman, joiner, rocket, !
    assert report.basis is Basis.INFERRED


@pytest.mark.parametrize(
    ("text", "code_points"), [("\\ud83d\\ude00", 1), ("e\\u0301", 2), ("\\u00e9", 1), ("\\n", 1), ("", 0)]
)
def test_an_escape_counts_as_the_character_that_it_encodes(text, code_points):
    body = f'{{"model":"tts-1","input":"{text}"}}'.encode()

    assert EXACT.parse(RequestView(body, "application/json")).facts.inferred[0].amount == code_points


def test_sse_of_a_token_priced_model_is_decoded_to_the_same_audio():
    body, content_type = request_body("speech")
    audio = response_body("speech")
    parsed = EXACT.parse(RequestView(body, content_type))
    edit = EDITS.body(parsed.facts, SSE)

    report = read_three_ways(lambda: EXACT.reader(parsed.facts, SSE), speech_stream(audio, size=700))

    assert json.loads(parsed.body) == json.loads(body) | {"stream_format": "sse"}
    assert parsed.facts.usage_injected
    assert edit.feed(speech_stream(audio, size=700)) + edit.close() == audio
    assert EDITS.content_type(parsed.facts, SSE) == "audio/mpeg"
    assert amounts(report) == {"input_tokens": 14, "output_audio_tokens": 101}
    assert report.basis is Basis.REPORTED
    assert json.loads(report.raw or "") == USAGE


def test_a_stream_that_the_client_asked_for_passes_unchanged():
    body = request(stream_format="sse")
    parsed = EXACT.parse(RequestView(body, ""))

    assert parsed.body is body
    assert parsed.facts.stream
    assert EDITS.body(parsed.facts, SSE) is None
    assert EDITS.content_type(parsed.facts, SSE) is None
    assert amounts(read(EXACT.reader(parsed.facts, SSE), [speech_stream(b"abc")])) == {
        "input_tokens": 14,
        "output_audio_tokens": 101,
    }


@pytest.mark.parametrize("media_type", ["", "text/plain"])
def test_events_without_their_media_type_become_the_audio_that_the_client_asked_for(media_type):
    facts = EXACT.parse(RequestView(request(), "")).facts
    head = ResponseHead(200, media_type)
    edit, other = EDITS.body(facts, head), EDITS.body(facts, head)
    stream = speech_stream(b"abc")

    assert edit is not None
    assert b"".join(edit.feed(stream[at : at + 5]) for at in range(0, len(stream), 5)) + edit.close() == b"abc"
    assert EDITS.content_type(facts, head) == "audio/mpeg"
    assert amounts(read(EXACT.reader(facts, head), [stream])) == {"input_tokens": 14, "output_audio_tokens": 101}
    assert other is not None
    assert other.feed(b"\xff\xf3audio") + other.close() == b"\xff\xf3audio"


def test_a_binary_response_to_an_injected_request_passes_and_is_estimated():
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
def test_without_sse_the_tokens_are_estimated_by_a_named_method(response_format, audio_bytes, tokens, method):
    body = request(input="x" * 30, instructions="y" * 9, response_format=response_format)
    parsed = ESTIMATING.parse(RequestView(body, ""))

    report = read_three_ways(lambda: ESTIMATING.reader(parsed.facts, MP3), bytes(audio_bytes))

    assert parsed.body is body
    assert amounts(report) == {"input_tokens": 10, "output_audio_tokens": tokens}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == method


def test_an_incomplete_stream_is_estimated_from_its_audio():
    facts = EXACT.parse(RequestView(request(), "")).facts

    report = read(EXACT.reader(facts, SSE), [speech_stream(bytes(16_000), size=8000, done=False)], complete=False)

    assert report.basis is Basis.ESTIMATED
    assert 20 <= amounts(report)["output_audio_tokens"] <= 21


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
def test_the_splice_changes_no_other_bytes(body, expected):
    assert ask_for_sse(body) == expected


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [(None, "audio/mpeg"), ("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("x", "application/octet-stream")],
)
def test_the_media_type_follows_the_response_format(response_format, expected):
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
def test_a_request_without_model_or_input_is_rejected(body):
    with pytest.raises(BadRequest):
        EXACT.parse(RequestView(body, "application/json"))


def test_a_repeated_model_is_rejected():
    with pytest.raises(InvalidBody):
        EXACT.parse(RequestView(b'{"model":"tts-1","model":"gpt-4o-mini-tts","input":"x"}', "application/json"))


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_reading_random_responses_never_raises(data, cuts, complete):
    for facts in (
        EXACT.parse(RequestView(request(), "")).facts,
        EXACT.parse(RequestView(request(model="tts-1"), "")).facts,
    ):
        for head in (SSE, MP3):
            for body in (data, b'data: {"type":"speech.audio.done","usage":' + data + b"}\n\n"):
                read(EXACT.reader(facts, head), pieces(body, cuts), complete=complete)
