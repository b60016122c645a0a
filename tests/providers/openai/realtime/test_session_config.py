from __future__ import annotations

import pytest

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.realtime.session_config import (
    input_transcription_spend,
    realtime_spend,
    session_spends,
    transcription_models,
)

GENERAL = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
BETA = {"input_audio_transcription": {"model": "gpt-4o-transcribe"}}


def test_a_session_can_be_charged_for_text_and_audio_but_not_images() -> None:
    spend = realtime_spend("gpt-realtime")

    assert (spend.model, spend.role) == ("gpt-realtime", None)
    assert spend.meters == {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.OUTPUT,
        Meter.INPUT_AUDIO,
        Meter.CACHED_INPUT_AUDIO,
        Meter.OUTPUT_AUDIO,
    }


def test_input_transcription_has_a_role_of_its_own() -> None:
    spend = input_transcription_spend("whisper-1")

    assert (spend.model, spend.role, spend.meters) == ("whisper-1", "input_transcription", {Meter.AUDIO_SECONDS})


@pytest.mark.parametrize(
    ("session", "models"),
    [
        pytest.param(GENERAL, ("whisper-1",), id="general format"),
        pytest.param(BETA, ("gpt-4o-transcribe",), id="beta format"),
        pytest.param(GENERAL | BETA, ("whisper-1", "gpt-4o-transcribe"), id="both formats"),
        pytest.param(GENERAL | {"input_audio_transcription": {"model": "whisper-1"}}, ("whisper-1",), id="one model"),
        pytest.param({"audio": {"input": {"transcription": None}}}, (), id="transcription off"),
        pytest.param({"audio": "text", "input_audio_transcription": {"model": 5}}, (), id="wrong types"),
        pytest.param({}, (), id="no transcription"),
    ],
)
def test_transcription_models_are_read_in_both_formats(session: dict[str, object], models: tuple[str, ...]) -> None:
    assert transcription_models(session) == models


def test_the_spends_of_a_session_are_its_model_and_its_transcription_models() -> None:
    session = {"model": "gpt-realtime"} | GENERAL | BETA

    assert [(spend.model, spend.role) for spend in session_spends(session)] == [
        ("gpt-realtime", None),
        ("whisper-1", "input_transcription"),
        ("gpt-4o-transcribe", "input_transcription"),
    ]


@pytest.mark.parametrize("session", [None, "text", [], {}, {"model": None}, {"instructions": "Be brief."}])
def test_a_configuration_without_models_has_no_spends(session: object) -> None:
    assert session_spends(session) == ()


@pytest.mark.parametrize("model", [5, ["gpt-realtime"], {}, True])
def test_a_model_that_is_not_text_is_rejected(model: object) -> None:
    with pytest.raises(InvalidBody, match='"model" must be text'):
        session_spends({"model": model})
