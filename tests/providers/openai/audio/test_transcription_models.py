from __future__ import annotations

import pytest

from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.audio.transcription_models import is_priced_by_length, transcription_spend


@pytest.mark.parametrize("model", ["whisper-1", "gpt-realtime-whisper", "gpt-transcribe", "gpt-live-transcribe"])
def test_models_charged_per_minute_need_a_price_per_second(model: str) -> None:
    assert is_priced_by_length(model)
    assert transcription_spend(model).meters == {Meter.AUDIO_SECONDS}


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "gpt-4o-transcribe-diarize", "unknown"])
def test_any_other_model_needs_prices_per_token(model: str) -> None:
    assert not is_priced_by_length(model)
    assert transcription_spend(model).meters == {Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT}


def test_the_spend_has_the_given_role() -> None:
    assert transcription_spend("whisper-1").role is None
    assert transcription_spend("whisper-1", role="input_transcription").role == "input_transcription"
