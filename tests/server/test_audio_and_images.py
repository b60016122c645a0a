"""Audio and images through the real server: the client gets what it asked for, and the bill is by the right meter."""

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

from tests.harness import ProxyProcess, mint, running_proxy
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


def items(proxy: ProxyProcess, headers: Any) -> tuple[dict[str, Any], dict[str, Decimal]]:
    record = proxy.read_record(headers["llm-proxy-request-id"])
    return record, {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}


def sound(seconds: float) -> bytes:
    """Silence as a WAV file."""
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * int(16_000 * seconds))
    return whole.getvalue()


def test_speech_by_characters(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="Grüße 🌍")

    record, quantities = items(proxy, raw.headers)
    assert quantities["input_characters"] == 7
    assert Decimal(record["subtotal"]) == 7 * Decimal(15) / MILLION
    assert record["basis"] == "inferred"


def test_speech_by_tokens_is_exact_and_the_client_still_gets_audio(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.audio.speech.with_raw_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="hello there", response_format="wav"
    )

    record, quantities = items(proxy, raw.headers)
    assert raw.headers["content-type"] == "audio/wav"
    assert raw.content.startswith(b"RIFF")
    assert record["basis"] == "reported"
    cost = quantities["input_tokens"] * Decimal("0.60") + quantities["output_audio_tokens"] * 12
    assert Decimal(record["subtotal"]) == cost / MILLION


def test_speech_by_tokens_is_estimated_where_the_answer_shall_pass_as_it_comes(tmp_path: Path) -> None:
    with (
        running_simulator(Simulator()) as url,
        running_proxy(tmp_path, url, speech_usage="estimated") as proxy,
        openai.OpenAI(base_url=proxy.base_url + "/v1", api_key=mint(), max_retries=0) as gpt,
    ):
        raw = gpt.audio.speech.with_raw_response.create(model="gpt-4o-mini-tts", voice="alloy", input="hello there")
        record, _ = items(proxy, raw.headers)

    assert record["basis"] == "estimated"
    assert record["estimate_method"]
    assert Decimal(record["subtotal"]) > 0


@pytest.mark.parametrize("shape", ["json", "text", "srt", "vtt", "verbose_json"])
def test_whisper_is_billed_by_the_second_whatever_the_shape(
    shape: Any, gpt: openai.OpenAI, proxy: ProxyProcess
) -> None:
    raw = gpt.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=("a.wav", sound(3.4)), response_format=shape
    )

    record, quantities = items(proxy, raw.headers)
    assert quantities["audio_seconds"] == 4
    assert Decimal(record["subtotal"]) == (4 * Decimal("0.006") / 60).quantize(Decimal("1e-12"))
    assert record["basis"] == ("inferred" if shape in ("text", "srt", "vtt") else "reported")


def test_transcription_by_tokens_json_and_streamed(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.audio.transcriptions.with_raw_response.create(model="gpt-4o-transcribe", file=("a.wav", sound(2)))
    streamed = gpt.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=("a.wav", sound(2)), stream=True
    )
    list(streamed.parse())

    first, _ = items(proxy, raw.headers)
    second, _ = items(proxy, streamed.headers)
    assert first["basis"] == second["basis"] == "reported"
    assert Decimal(first["subtotal"]) == Decimal(second["subtotal"]) > 0


def test_images_by_tokens_json_and_streamed(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.images.with_raw_response.generate(model="gpt-image-2", prompt="a red square", quality="low")
    answer = raw.parse()
    streamed = gpt.images.with_raw_response.generate(
        model="gpt-image-2", prompt="a red square", quality="low", stream=True, partial_images=2
    )
    list(streamed.parse())

    assert answer.usage is not None
    record, quantities = items(proxy, raw.headers)
    assert quantities["output_image_tokens"] == answer.usage.output_tokens
    assert record["basis"] == "reported"
    assert items(proxy, streamed.headers)[0]["basis"] == "reported"


def test_an_image_edit_uploads_pictures(gpt: openai.OpenAI, proxy: ProxyProcess) -> None:
    raw = gpt.images.with_raw_response.edit(model="gpt-image-2", image=("a.png", b"\x89PNG...."), prompt="make it blue")

    record, quantities = items(proxy, raw.headers)
    assert record["endpoint"] == "/v1/images/edits"
    assert quantities["input_image_tokens"] > 0


def test_an_image_without_a_model_is_refused(proxy: ProxyProcess) -> None:
    answer = httpx.post(
        proxy.base_url + "/v1/images/generations",
        json={"prompt": "x"},
        headers={"Authorization": f"Bearer {mint()}"},
    )

    assert answer.status_code == 400
    assert "model" in answer.json()["error"]["message"]
