"""Reads the spends of a realtime session from its configuration, in the general or the beta format.

    general   {"model": ..., "audio": {"input": {"transcription": {"model": ...}}}}
    beta      {"model": ..., "input_audio_transcription": {"model": ...}}

Source: OpenAI API reference, "Realtime", the session object and `session.update`.
"""

from __future__ import annotations

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Meter
from tornado_proxy.providers.openai.audio.transcription_models import transcription_spend
from tornado_proxy.providers.shared.json_values import as_object, as_text

#: The role in the price registry of a model that transcribes a session's input.
INPUT_TRANSCRIPTION = "input_transcription"

#: Meters of speech and text.  Images have meters of their own and are admitted when a client sends one.
_SPEECH_METERS = frozenset(
    {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.OUTPUT,
        Meter.INPUT_AUDIO,
        Meter.CACHED_INPUT_AUDIO,
        Meter.OUTPUT_AUDIO,
    }
)


def realtime_spend(model: str) -> Spend:
    """Return the spend of a session with `model`, without images."""
    return Spend(model, _SPEECH_METERS)


def input_transcription_spend(model: str) -> Spend:
    """Return the spend of transcribing a session's input with `model`."""
    return transcription_spend(model, role=INPUT_TRANSCRIPTION)


def transcription_models(session: dict[str, object]) -> tuple[str, ...]:
    """Return the models that transcribe the input of `session`, in both formats."""
    audio_input = as_object(as_object(session.get("audio")).get("input"))
    configs = (as_object(audio_input.get("transcription")), as_object(session.get("input_audio_transcription")))
    models = (as_text(config.get("model")) for config in configs)
    return tuple(dict.fromkeys(model for model in models if model))


def session_spends(session: object) -> tuple[Spend, ...]:
    """Return the spends of a session's configuration: its model's, and those of its transcription models.

    Raises:
        InvalidBody: the model is not text.
    """
    if not isinstance(session, dict):
        return ()
    model = session.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidBody('"model" must be text', param="model")
    own_spends = () if model is None else (realtime_spend(model),)
    return (*own_spends, *map(input_transcription_spend, transcription_models(session)))
