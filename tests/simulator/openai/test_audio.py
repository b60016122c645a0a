import asyncio
import json
import struct

import httpx2
import openai
import pytest

#: The SDK marks translations and variations as deprecated; the endpoints are still served.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

#: Two and a half seconds of mono audio at 8,000 bytes a second.
WAV = struct.pack(
    "<4sI4s4sIHHIIHH4sI", b"RIFF", 20_036, b"WAVE", b"fmt ", 16, 1, 1, 4000, 8000, 2, 16, b"data", 20_000
) + bytes(20_000)
FIRST_FIVE = "The stand-in answers"


def test_speech_is_audio_in_the_requested_format(openai_client: openai.OpenAI) -> None:
    mp3 = openai_client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="one two three four").read()
    pcm = openai_client.audio.speech.create(model="tts-1", voice="alloy", input="one two", response_format="pcm").read()
    wav = openai_client.audio.speech.create(model="tts-1", voice="alloy", input="one", response_format="wav").read()

    assert len(mp3) == 42 * 384
    assert len(pcm) == 24_000
    assert wav[:4] == b"RIFF"


def test_speech_events_state_usage(base_url: str) -> None:
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "one two", "stream_format": "sse"}

    text = httpx2.post(f"{base_url}/v1/audio/speech", json=body, headers={"x-api-key": "k"}).text

    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 2, "output_tokens": 10, "total_tokens": 12},
    }


def test_cut_directive_breaks_speech(openai_client: openai.OpenAI) -> None:
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        openai_client.audio.speech.create(model="tts-1", voice="alloy", input="[[sim bytes=100000 cut=after:2]]").read()


def test_transcription_is_charged_by_tokens_or_by_seconds(openai_client: openai.OpenAI) -> None:
    def transcribe(model: str):
        return openai_client.audio.transcriptions.create(model=model, file=("a.wav", WAV), prompt="[[sim tokens=5]]")

    tokens, seconds = transcribe("gpt-4o-transcribe"), transcribe("whisper-1")

    assert tokens.text == FIRST_FIVE
    assert (tokens.usage.type, tokens.usage.input_tokens, tokens.usage.output_tokens) == ("tokens", 25 + 8, 5)
    assert (tokens.usage.input_token_details.audio_tokens, tokens.usage.input_token_details.text_tokens) == (25, 8)
    assert tokens.usage.total_tokens == 38
    assert (seconds.usage.type, seconds.usage.seconds) == ("duration", 3)


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("text", "The stand-in answers\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\nThe stand-in answers\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nThe stand-in answers\n\n"),
    ],
)
def test_plain_formats_have_no_usage(openai_client: openai.OpenAI, format_: str, expected: str) -> None:
    arguments = {"model": "whisper-1", "file": ("a.wav", WAV), "prompt": "[[sim tokens=5]]", "response_format": format_}

    assert openai_client.audio.transcriptions.create(**arguments) == expected
    assert openai_client.audio.translations.create(**arguments) == expected


def test_verbose_formats_state_the_duration(openai_client: openai.OpenAI) -> None:
    create = openai_client.audio.transcriptions.create
    verbose = create(model="whisper-1", file=("a.wav", WAV), response_format="verbose_json")
    diarized = create(model="gpt-4o-transcribe-diarize", file=("a.wav", WAV), response_format="diarized_json")
    translated = openai_client.audio.translations.create(
        model="whisper-1", file=("a.wav", WAV), response_format="verbose_json"
    )

    assert (verbose.duration, verbose.usage.seconds, verbose.segments[0].end) == (2.5, 3, 2.5)
    assert (diarized.duration, diarized.usage.type, diarized.segments[0].speaker) == (2.5, "tokens", "A")
    assert translated.duration == 2.5
    assert not hasattr(translated, "usage")


def test_translation_has_no_usage(openai_client: openai.OpenAI) -> None:
    response = openai_client.audio.translations.create(
        model="whisper-1", file=("a.wav", WAV), prompt="[[sim tokens=5]]"
    )

    assert response.to_dict() == {"text": FIRST_FIVE}


def test_streamed_transcription_ends_with_usage(openai_client: openai.OpenAI) -> None:
    events = list(
        openai_client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=("a.wav", WAV), prompt="[[sim tokens=5]]", stream=True
        )
    )

    assert "".join(event.delta for event in events[:-1]) == events[-1].text == FIRST_FIVE
    assert events[-1].usage.total_tokens == 38


def test_async_client_transcribes(base_url: str) -> None:
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="k") as client:
            return (await client.audio.transcriptions.create(model="whisper-1", file=("a.wav", WAV))).text

    assert asyncio.run(read()).startswith("The stand-in")


def test_transcription_without_a_file_is_rejected(base_url: str) -> None:
    files = {"model": (None, "whisper-1")}

    response = httpx2.post(f"{base_url}/v1/audio/transcriptions", files=files, headers={"x-api-key": "k"})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "file")
