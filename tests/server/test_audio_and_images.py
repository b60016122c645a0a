"""Speech, transcription and images from the official SDK to the simulator: the content, and the exact cost."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_simulator(Simulator()) as url, running_proxy(tmp_path_factory.mktemp("media"), url) as running:
        yield running


@pytest.fixture
def gpt(proxy: ProxyProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as client:
        yield client


def read_quantities(proxy: ProxyProcess, headers: Any) -> tuple[dict[str, Any], dict[str, Decimal]]:
    record = proxy.read_record(headers["llm-proxy-request-id"])
    return record, {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}


def make_wav(seconds: float) -> bytes:
    """Return silence as a WAV file."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * int(16_000 * seconds))
    return data.getvalue()


def test_speech_model_priced_by_characters_is_billed_by_characters(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="Grüße 🌍")

    record, quantities = read_quantities(proxy, raw.headers)
    assert quantities["input_characters"] == 7
    assert Decimal(record["subtotal"]) == 7 * Decimal(15) / MILLION
    assert record["basis"] == "inferred"


def test_speech_priced_by_tokens_is_exact_and_the_client_receives_audio(
    gpt: openai.OpenAI, proxy: ProxyProcess
) -> None:
    raw = gpt.audio.speech.with_raw_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="hello there", response_format="wav"
    )

    record, quantities = read_quantities(proxy, raw.headers)
    assert raw.headers["content-type"] == "audio/wav"
    assert raw.content.startswith(b"RIFF")
    assert record["basis"] == "reported"
    cost = quantities["input_tokens"] * Decimal("0.60") + quantities["output_audio_tokens"] * 12
    assert Decimal(record["subtotal"]) == cost / MILLION


def test_speech_priced_by_tokens_is_estimated_if_its_response_is_relayed_unchanged(tmp_path: Path) -> None:
    with (
        running_simulator(Simulator()) as url,
        running_proxy(tmp_path, url, speech_usage="estimated") as proxy,
        openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as gpt,
    ):
        raw = gpt.audio.speech.with_raw_response.create(model="gpt-4o-mini-tts", voice="alloy", input="hello there")
        record, _ = read_quantities(proxy, raw.headers)

    assert record["basis"] == "estimated"
    assert record["estimate_method"]
    assert Decimal(record["subtotal"]) > 0


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_whisper_is_billed_by_the_second_in_every_response_format(
    response_format: Any, gpt: openai.OpenAI, proxy: ProxyProcess
) -> None:
    raw = gpt.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=("a.wav", make_wav(3.4)), response_format=response_format
    )

    record, quantities = read_quantities(proxy, raw.headers)
    assert quantities["audio_seconds"] == 4
    assert Decimal(record["subtotal"]) == (4 * Decimal("0.006") / 60).quantize(Decimal("1e-12"))
    assert record["basis"] == ("inferred" if response_format in ("text", "srt", "vtt") else "reported")


def test_transcription_costs_the_same_as_json_and_as_a_stream(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.audio.transcriptions.with_raw_response.create(model="gpt-4o-transcribe", file=("a.wav", make_wav(2)))
    streamed = gpt.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=("a.wav", make_wav(2)), stream=True
    )
    list(streamed.parse())

    first, _ = read_quantities(proxy, raw.headers)
    second, _ = read_quantities(proxy, streamed.headers)
    assert first["basis"] == second["basis"] == "reported"
    assert Decimal(first["subtotal"]) == Decimal(second["subtotal"]) > 0


def test_images_are_billed_by_tokens_as_json_and_as_a_stream(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.images.with_raw_response.generate(model="gpt-image-2", prompt="a red square", quality="low")
    response = raw.parse()
    streamed = gpt.images.with_raw_response.generate(
        model="gpt-image-2", prompt="a red square", quality="low", stream=True, partial_images=2
    )
    list(streamed.parse())

    assert response.usage is not None
    record, quantities = read_quantities(proxy, raw.headers)
    assert quantities["output_image_tokens"] == response.usage.output_tokens
    assert record["basis"] == "reported"
    assert read_quantities(proxy, streamed.headers)[0]["basis"] == "reported"


def test_image_edit_is_billed_for_its_input_image(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.images.with_raw_response.edit(model="gpt-image-2", image=("a.png", b"\x89PNG...."), prompt="make it blue")

    record, quantities = read_quantities(proxy, raw.headers)
    assert record["endpoint"] == "/v1/images/edits"
    assert quantities["input_image_tokens"] > 0


def test_image_request_without_a_model_is_rejected(proxy: ProxyProcess) -> None:
    response = httpx.post(
        proxy.base_url + "/v1/images/generations",
        json={"prompt": "x"},
        headers={"Authorization": f"Bearer {mint()}"},
    )

    assert response.status_code == 400
    assert "model" in response.json()["error"]["message"]


def upload(proxy: ProxyProcess, path: str, seconds: float, **fields: str) -> httpx.Response:
    """Send a WAV file as a form."""
    return httpx.post(
        proxy.base_url + path,
        headers={"Authorization": f"Bearer {mint()}"},
        data=fields,
        files={"file": ("a.wav", make_wav(seconds))},
        timeout=TIMEOUT_S,
    )


def test_audio_translation_is_billed_by_its_duration(proxy: ProxyProcess) -> None:
    response = upload(proxy, "/v1/audio/translations", 30, model="whisper-1")

    record, _ = read_quantities(proxy, response.headers)
    assert response.json()["text"]
    assert Decimal(record["subtotal"]) == Decimal("0.003")  # half a minute of 0.006


def test_transcription_with_speakers_is_billed_by_its_usage(proxy: ProxyProcess) -> None:
    response = upload(
        proxy, "/v1/audio/transcriptions", 5, model="gpt-4o-transcribe-diarize", response_format="diarized_json"
    )

    assert response.status_code == 200, response.text
    record, _ = read_quantities(proxy, response.headers)
    assert record["basis"] in ("reported", "inferred")
    assert Decimal(record["subtotal"]) > 0
