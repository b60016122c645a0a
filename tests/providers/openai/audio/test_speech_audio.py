from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.audio.speech_streams import speech_stream
from tests.providers.reading import pieces
from tornado_proxy.domain.errors import UpstreamError
from tornado_proxy.providers.openai.audio.speech_audio import SpeechAudio


@given(audio=st.binary(max_size=60), size=st.integers(1, 20), cuts=st.lists(st.integers(0, 5000)))
def test_the_audio_is_the_same_however_the_stream_is_cut(audio: bytes, size: int, cuts: list[int]) -> None:
    edit = SpeechAudio()

    assert b"".join(map(edit.feed, pieces(speech_stream(audio, size=size), cuts))) + edit.close() == audio


def test_audio_is_returned_with_the_event_that_contains_it() -> None:
    assert SpeechAudio().feed(speech_stream(b"1234567", done=False)) == b"1234567"


def test_a_last_event_without_a_blank_line_counts() -> None:
    edit = SpeechAudio()

    assert edit.feed(speech_stream(b"abc").removesuffix(b"\n\n")) + edit.close() == b"abc"


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(speech_stream(b"abc", done=False), id="no last event"),
        pytest.param(b"", id="empty"),
        pytest.param(
            speech_stream(b"abc", done=False) + b'data: {"type":"error","error":{"message":"no"}}\n\n', id="an error"
        ),
        pytest.param(b'data: {"type":"speech.audio.delta","audio":"*"}\n\n', id="invalid base64"),
        pytest.param(b"data: rubbish\n\n", id="no JSON"),
    ],
)
def test_incomplete_audio_never_looks_complete(stream: bytes) -> None:
    edit = SpeechAudio()

    with pytest.raises(UpstreamError):
        edit.feed(stream) + edit.close()


def test_an_event_that_is_nested_too_deeply_is_the_provider_s_fault() -> None:
    with pytest.raises(UpstreamError, match="invalid event"):
        SpeechAudio().feed(b'data: {"type":"x","q":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n\n")


def test_a_stream_without_an_end_of_an_event_is_broken_off() -> None:
    edit = SpeechAudio()

    with pytest.raises(UpstreamError):
        edit.feed(b"data: " + b"A" * 65 * 1024 * 1024) + edit.feed(b"A")
