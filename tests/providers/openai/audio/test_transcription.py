from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.audio.forms import FORM, form, wav
from tests.providers.openai.reports import amounts
from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.audio import transcription
from tornado_proxy.providers.openai.audio.endpoints import audio_endpoints
from tornado_proxy.providers.shared.response_readers import make_usage_reader

TRANSCRIPTIONS, TRANSLATIONS = transcription.TRANSCRIPTIONS, transcription.TRANSLATIONS
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")


def transcribe(body: bytes, response: bytes, head: ResponseHead = JSON, endpoint: Any = TRANSCRIPTIONS) -> UsageReport:
    request = RequestView(body, FORM)
    parsed = endpoint.measure(endpoint.parse(request), request)
    return read_three_ways(lambda: endpoint.reader(parsed.facts, head), response)


@pytest.mark.parametrize(
    ("name", "head"), [("transcription-tokens", JSON), ("transcription-whisper", JSON), ("transcription-stream", SSE)]
)
def test_recorded_transcriptions_give_the_expected_lines(name, head):
    body, content_type = request_body(name)
    if name == "transcription-stream":  # the recording shortened its audio and lost the closing boundary
        body += b"\r\n--" + content_type.partition("boundary=")[2].encode() + b"--\r\n"
    parsed = transcription.parse(RequestView(body, content_type))

    report = read_three_ways(lambda: transcription.make_reader(parsed.facts, head), response_body(name))

    assert lines([report], parsed.facts.model) == expected_lines(name)
    assert report.basis is Basis.REPORTED
    assert parsed.body is body


def test_the_recorded_upload_has_the_length_that_the_provider_measured():
    body, content_type = request_body("transcription-whisper")
    request = RequestView(body, content_type)

    parsed = transcription.measure_transcription(transcription.parse(request), request)

    assert [(q.meter, q.amount) for q in parsed.facts.inferred] == [(Meter.AUDIO_SECONDS, Decimal(4))]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_text_responses_of_whisper_are_inferred_from_the_audio(response_format):
    body = form(wav(3.2), model="whisper-1", response_format=response_format)

    report = transcribe(body, b"WEBVTT\n\nhello", ResponseHead(200, "text/plain"))

    assert amounts(report) == {"audio_seconds": 4}
    assert report.basis is Basis.INFERRED


def test_a_text_response_of_a_token_priced_model_is_estimated_by_a_named_method():
    body = form(wav(3.7), model="gpt-4o-transcribe-diarize", response_format="text")

    report = transcribe(body, b"x" * 41, ResponseHead(200, "text/plain"))

    # 4 s of 10 tokens; 41 bytes of text, four bytes a token.
    assert amounts(report) == {"input_audio_tokens": 40, "output_tokens": 11}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "transcription_audio_length"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param({"text": "hi"}, {"audio_seconds": 2}, id="json states no duration"),
        pytest.param({"text": "hi", "duration": 6.01}, {"audio_seconds": 7}, id="verbose_json states a duration"),
    ],
)
def test_translations_are_charged_by_length(response, expected):
    report = transcribe(form(wav(1.5), model="whisper-1"), json.dumps(response).encode(), endpoint=TRANSLATIONS)

    assert amounts(report) == expected
    assert report.basis is Basis.INFERRED


def test_usage_takes_precedence_over_duration():
    response = {"duration": 6.4, "usage": {"type": "duration", "seconds": 7}, "text": "hi"}
    body = form(wav(1.5), model="whisper-1", response_format="verbose_json")

    report = transcribe(body, json.dumps(response).encode())

    assert amounts(report) == {"audio_seconds": 7}
    assert report.basis is Basis.REPORTED


def test_text_and_audio_input_are_separate():
    usage = {
        "type": "tokens",
        "input_tokens": 30,
        "output_tokens": 9,
        "total_tokens": 39,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 20},
    }

    report = transcribe(form(wav(1), model="gpt-4o-transcribe"), json.dumps({"usage": usage}).encode())

    assert amounts(report) == {"input_tokens": 10, "input_audio_tokens": 20, "output_tokens": 9}


def test_an_incomplete_stream_is_estimated_from_the_audio():
    request = RequestView(form(wav(2), model="gpt-4o-transcribe", stream="true"), FORM)
    facts = TRANSCRIPTIONS.measure(TRANSCRIPTIONS.parse(request), request).facts

    report = read(
        TRANSCRIPTIONS.reader(facts, SSE),
        [b'data: {"type":"transcript.text.delta","delta":"Ruby"}\n\n'],
        complete=False,
    )

    assert facts.stream
    assert report.basis is Basis.ESTIMATED
    assert amounts(report)["input_audio_tokens"] == 20


@pytest.mark.parametrize(
    ("endpoint", "fields", "rejected"),
    [
        (TRANSCRIPTIONS, {"response_format": "text"}, True),
        (TRANSCRIPTIONS, {"response_format": "json"}, False),
        (TRANSCRIPTIONS, {}, False),
        (TRANSLATIONS, {}, True),
        (TRANSLATIONS, {"response_format": "verbose_json"}, False),
    ],
)
def test_audio_of_unknown_length_is_rejected_only_if_the_response_states_no_usage(endpoint, fields, rejected):
    webm = b"\x1aE\xdf\xa3" + bytes(200)  # tinytag reads no webm
    request = RequestView(form(webm, model="whisper-1", **fields), FORM)
    parsed = endpoint.parse(request)

    if not rejected:
        assert endpoint.measure(parsed, request).facts.inferred == ()
        return
    with pytest.raises(BadRequest, match="ask for response_format") as caught:
        endpoint.measure(parsed, request)
    assert caught.value.code == "audio_length_unknown"


def test_a_form_without_a_model_is_rejected():
    with pytest.raises(BadRequest, match="model"):
        TRANSCRIPTIONS.parse(RequestView(form(wav(1)), FORM))


def test_two_models_in_a_form_are_rejected():
    body = form(model="whisper-1")[:-8] + form(model="gpt-4o-transcribe")

    with pytest.raises(InvalidBody):
        TRANSCRIPTIONS.parse(RequestView(body, FORM))


def test_a_request_without_a_file_is_left_to_the_provider():
    request = RequestView(form(model="whisper-1"), FORM)
    parsed = TRANSLATIONS.parse(request)

    assert TRANSLATIONS.measure(parsed, request) is parsed


def test_an_error_response_is_free():
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="whisper-1", response_format="text"), FORM)).facts

    for endpoint in audio_endpoints():
        report = read(make_usage_reader(endpoint, facts, ResponseHead(429, "application/json")), [b'{"error":{}}'])
        assert report == UsageReport(basis=Basis.FREE)


def test_a_response_without_usage_and_length_is_unsettled():
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="whisper-1"), FORM)).facts

    for response in (b'{"text":"hi"}', b'{"text":', b"[]", b'{"usage":null}', b'{"duration":"4"}'):
        report = read(TRANSCRIPTIONS.reader(facts, JSON), [response])
        assert report.basis is Basis.UNSETTLED
        assert report.faults


@pytest.mark.parametrize("seconds", [-1, "4", True, None, [4]])
def test_an_invalid_duration_is_a_fault(seconds):
    response = json.dumps({"usage": {"type": "duration", "seconds": seconds}}).encode()

    report = transcribe(form(wav(1), model="whisper-1"), response)

    assert report.basis is Basis.UNSETTLED
    assert report.faults


@given(body=st.binary(max_size=300), content_type=st.sampled_from([FORM, "application/json", ""]))
def test_parsing_random_bodies_raises_nothing_but_bad_request(body, content_type):
    for endpoint in (*audio_endpoints(), *audio_endpoints(exact_speech=False)):
        try:
            endpoint.parse(RequestView(body, content_type))
        except BadRequest:
            continue


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_reading_random_responses_never_raises(data, cuts, complete):
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="gpt-4o-transcribe"), FORM)).facts
    for head in (JSON, SSE):
        for body in (data, b'data: {"type":"transcript.text.done","usage":' + data + b"}\n\n"):
            read(TRANSCRIPTIONS.reader(facts, head), pieces(body, cuts), complete=complete)
