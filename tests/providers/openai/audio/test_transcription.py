from __future__ import annotations

import json
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.reading import pieces, read, read_three_ways
from tests.providers.recorded import expected_lines, lines, request_body, response_body
from tornado_proxy.domain.errors import BadRequest, InvalidBody
from tornado_proxy.domain.usage import Basis, Meter, UsageReport
from tornado_proxy.providers.contract import RequestView, ResponseHead
from tornado_proxy.providers.openai.audio import transcription
from tornado_proxy.providers.openai.audio.audio_length import measure_seconds
from tornado_proxy.providers.openai.audio.endpoints import audio_endpoints

TRANSCRIPTIONS, TRANSLATIONS = transcription.TRANSCRIPTIONS, transcription.TRANSLATIONS
FORM = "multipart/form-data; boundary=XX"
JSON, SSE = ResponseHead(200, "application/json"), ResponseHead(200, "text/event-stream")


def wav(seconds: float, rate: int = 8000, *, claimed: int | None = None) -> bytes:
    data = b"\x00\x00" * int(seconds * rate)
    size = len(data) if claimed is None else claimed
    return (
        b"RIFF"
        + struct.pack("<I", (36 + size) & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def form(audio: bytes = b"", **fields: str) -> bytes:
    parts = [f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    if audio:
        parts.append(b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + audio + b"\r\n")
    return b"".join(parts) + b"--XX--\r\n"


def meters(report: UsageReport) -> dict[str, int]:
    return {q.meter.value: int(q.amount) for reading in report.items for q in reading.quantities}


def transcribe(body: bytes, answer: bytes, head: ResponseHead = JSON, endpoint: Any = TRANSCRIPTIONS) -> UsageReport:
    request = RequestView(body, FORM)
    parsed = endpoint.measure(endpoint.parse(request), request)
    return read_three_ways(lambda: endpoint.reader(parsed.facts, head), answer)


@pytest.mark.parametrize(
    ("name", "head"), [("transcription-tokens", JSON), ("transcription-whisper", JSON), ("transcription-stream", SSE)]
)
def test_recorded_transcriptions_come_to_the_expected_lines(name, head):
    body, content_type = request_body(name)
    if name == "transcription-stream":  # its audio was shortened, its closing boundary with it
        body += b"\r\n--" + content_type.partition("boundary=")[2].encode() + b"--\r\n"
    parsed = transcription.parse(RequestView(body, content_type))

    report = read_three_ways(lambda: transcription.make_reader(parsed.facts, head), response_body(name))

    assert lines([report], parsed.facts.model) == expected_lines(name)
    assert report.basis is Basis.REPORTED
    assert parsed.body is body


def test_the_recorded_upload_is_measured_as_the_provider_measured_it():
    body, content_type = request_body("transcription-whisper")
    request = RequestView(body, content_type)

    parsed = transcription.measure_transcription(transcription.parse(request), request)

    assert [(q.meter, q.amount) for q in parsed.facts.inferred] == [(Meter.AUDIO_SECONDS, Decimal(4))]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_plain_answers_of_whisper_are_inferred_from_the_audio(response_format):
    body = form(wav(3.2), model="whisper-1", response_format=response_format)

    report = transcribe(body, b"WEBVTT\n\nhello", ResponseHead(200, "text/plain"))

    assert meters(report) == {"audio_seconds": 4}
    assert report.basis is Basis.INFERRED


def test_a_plain_answer_of_a_token_priced_model_is_estimated_and_named():
    body = form(wav(3.7), model="gpt-4o-transcribe-diarize", response_format="text")

    report = transcribe(body, b"x" * 41, ResponseHead(200, "text/plain"))

    assert meters(report) == {"input_audio_tokens": 40, "output_tokens": 11}
    assert report.basis is Basis.ESTIMATED
    assert report.estimate_method == "transcription_audio_length"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param({"text": "hi"}, {"audio_seconds": 2}, id="json states nothing"),
        pytest.param({"text": "hi", "duration": 6.01}, {"audio_seconds": 7}, id="verbose_json states a duration"),
    ],
)
def test_translations_are_charged_by_length(answer, expected):
    report = transcribe(form(wav(1.5), model="whisper-1"), json.dumps(answer).encode(), endpoint=TRANSLATIONS)

    assert meters(report) == expected
    assert report.basis is Basis.INFERRED


def test_usage_has_the_last_word_over_duration():
    answer = {"duration": 6.4, "usage": {"type": "duration", "seconds": 7}, "text": "hi"}

    report = transcribe(form(wav(1.5), model="whisper-1", response_format="verbose_json"), json.dumps(answer).encode())

    assert meters(report) == {"audio_seconds": 7}
    assert report.basis is Basis.REPORTED


def test_text_and_audio_input_are_apart():
    usage = {
        "type": "tokens",
        "input_tokens": 30,
        "output_tokens": 9,
        "total_tokens": 39,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 20},
    }

    report = transcribe(form(wav(1), model="gpt-4o-transcribe"), json.dumps({"usage": usage}).encode())

    assert meters(report) == {"input_tokens": 10, "input_audio_tokens": 20, "output_tokens": 9}


def test_a_stream_that_breaks_is_estimated_from_the_audio():
    request = RequestView(form(wav(2), model="gpt-4o-transcribe", stream="true"), FORM)
    facts = TRANSCRIPTIONS.measure(TRANSCRIPTIONS.parse(request), request).facts

    report = read(
        TRANSCRIPTIONS.reader(facts, SSE),
        [b'data: {"type":"transcript.text.delta","delta":"Ruby"}\n\n'],
        complete=False,
    )

    assert facts.stream
    assert report.basis is Basis.ESTIMATED
    assert meters(report)["input_audio_tokens"] == 20


@pytest.mark.parametrize(
    ("endpoint", "fields", "refused"),
    [
        (TRANSCRIPTIONS, {"response_format": "text"}, True),
        (TRANSCRIPTIONS, {"response_format": "json"}, False),
        (TRANSCRIPTIONS, {}, False),
        (TRANSLATIONS, {}, True),
        (TRANSLATIONS, {"response_format": "verbose_json"}, False),
    ],
)
def test_audio_without_a_length_is_refused_only_where_the_answer_states_none(endpoint, fields, refused):
    webm = b"\x1aE\xdf\xa3" + bytes(200)
    request = RequestView(form(webm, model="whisper-1", **fields), FORM)
    parsed = endpoint.parse(request)

    if not refused:
        assert endpoint.measure(parsed, request).facts.inferred == ()
        return
    with pytest.raises(BadRequest, match="ask for response_format") as caught:
        endpoint.measure(parsed, request)
    assert caught.value.code == "audio_length_unknown"


def test_a_form_without_a_model_is_refused():
    with pytest.raises(BadRequest, match="model"):
        TRANSCRIPTIONS.parse(RequestView(form(wav(1)), FORM))


def test_an_error_answer_is_free():
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="whisper-1", response_format="text"), FORM)).facts

    for endpoint in audio_endpoints():
        report = read(endpoint.usage_reader(facts, ResponseHead(429, "application/json")), [b'{"error":{}}'])
        assert report == UsageReport(basis=Basis.FREE)


def test_an_answer_without_usage_and_length_is_unsettled():
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="whisper-1"), FORM)).facts

    for answer in (b'{"text":"hi"}', b'{"text":', b"[]", b'{"usage":null}', b'{"duration":"4"}'):
        report = read(TRANSCRIPTIONS.reader(facts, JSON), [answer])
        assert report.basis is Basis.UNSETTLED
        assert report.faults


# Length of audio.

MP3_FRAME = bytes([0xFF, 0xF3, 0xC4, 0xC4]) + bytes(380)  # MPEG-2 layer III, 128 kbit/s, 24 kHz: 576 samples
M4A = (
    struct.pack(">I4s4sI", 16, b"ftyp", b"M4A ", 0)
    + struct.pack(">I4s", 116, b"moov")
    + struct.pack(">I4sIIIII", 108, b"mvhd", 0, 0, 0, 1000, 2345)
    + bytes(80)
)


def flac(seconds: float, rate: int = 44_100) -> bytes:
    packed = (rate << 44) | (0 << 41) | (15 << 36) | int(seconds * rate)
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80\x00\x00\x22" + info + bytes(100)


def ogg_opus(seconds: float) -> bytes:
    def page(flags: int, granule: int, number: int, content: bytes) -> bytes:
        return b"OggS\0" + struct.pack("<BqIIIBB", flags, granule, 1, number, 0, 1, len(content)) + content

    head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    return page(2, 0, 0, head) + page(0, 0, 1, tags) + page(4, int(seconds * 48_000), 2, bytes(100))


@pytest.mark.parametrize(
    ("audio", "seconds"),
    [
        pytest.param(wav(3.7), 4, id="wav"),
        pytest.param(wav(4), 4, id="wav of whole seconds"),
        pytest.param(wav(4, claimed=0xFFFFFFFF), 4, id="wav that was streamed"),
        pytest.param(wav(4, claimed=2), 4, id="wav that claims to be short"),
        pytest.param(MP3_FRAME * 1000, 24, id="mp3"),
        pytest.param(b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + MP3_FRAME * 1001, 25, id="mp3 with a tag"),
        pytest.param(M4A, 3, id="m4a"),
        pytest.param(flac(2.2), 3, id="flac"),
        pytest.param(ogg_opus(9.5), 10, id="ogg opus"),
        pytest.param(flac(0.001) + bytes(1_000_000), None, id="flac that claims to be short"),
        pytest.param(flac(0), None, id="flac that states no length"),
        pytest.param(b"\x1aE\xdf\xa3" + bytes(100), None, id="webm"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"RIFF", None, id="half a header"),
        pytest.param(wav(0), None, id="no sound"),
    ],
)
def test_length_is_whole_seconds_rounded_up(audio, seconds):
    assert measure_seconds(memoryview(audio)) == seconds


def test_garbage_is_given_up_soon():
    assert measure_seconds(memoryview(b"ID3\x03\0\0\0\0\0\0" + b"\xff\x00" * 2_000_000)) is None


@given(
    head=st.sampled_from(
        [b"", wav(0.01)[:40], MP3_FRAME, M4A, flac(1)[:12], ogg_opus(1)[:60], b"RIFF\0\0\0\0WAVEfmt "]
    ),
    rest=st.binary(max_size=300),
)
def test_measuring_random_bytes_raises_nothing(head, rest):
    seconds = measure_seconds(memoryview(head + rest))
    assert seconds is None or seconds > 0


@given(body=st.binary(max_size=300), content_type=st.sampled_from([FORM, "application/json", ""]))
def test_parsing_random_bodies_raises_nothing_but_refusals(body, content_type):
    for endpoint in (*audio_endpoints(), *audio_endpoints(exact_speech=False)):
        try:
            endpoint.parse(RequestView(body, content_type))
        except BadRequest:
            continue


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), complete=st.booleans())
def test_reading_random_answers_raises_nothing(data, cuts, complete):
    facts = TRANSCRIPTIONS.parse(RequestView(form(wav(1), model="gpt-4o-transcribe"), FORM)).facts
    for head in (JSON, SSE):
        for body in (data, b'data: {"type":"transcript.text.done","usage":' + data + b"}\n\n"):
            read(TRANSCRIPTIONS.reader(facts, head), pieces(body, cuts), complete=complete)


def other_wav(format_tag: int, tail: bytes, data: bytes) -> bytes:
    fmt = struct.pack("<HHIIHH", format_tag, 1, 8000, 16_000, 2, 16) + tail
    fact = b"fact" + struct.pack("<II", 4, 20_000)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + fact + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_wav_formats_other_than_plain_pcm():
    extensible = other_wav(0xFFFE, struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14), bytes(40_000))
    adpcm = other_wav(0x11, b"", bytes(10_000))

    assert measure_seconds(memoryview(extensible)) == 3  # 40,000 bytes at 16,000 a second
    assert measure_seconds(memoryview(adpcm)) == 3  # 20,000 samples at 8,000 a second


def test_answers_that_are_too_large_are_marked_and_bounded():
    facts = TRANSCRIPTIONS.parse(RequestView(form(model="whisper-1"), FORM)).facts
    text = b'{"text":"' + b"so on " * 1_500_000

    body = read(TRANSCRIPTIONS.reader(facts, JSON), [text, text, b'"}'])
    event = read(TRANSCRIPTIONS.reader(facts, SSE), [b"data: " + b"so on " * 11_500_000, b"x"])

    assert body.basis is Basis.UNSETTLED
    assert any("not a complete JSON object" in fault for fault in body.faults)
    assert any("too large" in fault for fault in event.faults)


@pytest.mark.parametrize("seconds", [-1, "4", True, None, [4]])
def test_a_duration_that_is_none_is_marked(seconds):
    answer = json.dumps({"usage": {"type": "duration", "seconds": seconds}}).encode()

    report = transcribe(form(wav(1), model="whisper-1"), answer)

    assert report.basis is Basis.UNSETTLED
    assert report.faults


def test_a_request_without_a_file_is_left_to_the_provider():
    request = RequestView(form(model="whisper-1"), FORM)
    parsed = TRANSLATIONS.parse(request)

    assert TRANSLATIONS.measure(parsed, request) is parsed


def test_two_models_in_a_form_are_refused():
    body = form(model="whisper-1")[:-8] + form(model="gpt-4o-transcribe")

    with pytest.raises(InvalidBody):
        TRANSCRIPTIONS.parse(RequestView(body, FORM))
