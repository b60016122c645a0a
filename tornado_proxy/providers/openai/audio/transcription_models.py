"""How speech recognition models are priced: by the length of the audio, or by tokens.

The kinds follow from the model's family, and only say which prices are asked for: a model of a family that is not known
here has to have token prices, or it is refused before anything is sent.
"""

from __future__ import annotations

from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Meter

_BY_LENGTH = frozenset({Meter.AUDIO_SECONDS})
_BY_TOKENS = frozenset({Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT})
_LENGTH_PRICED = ("gpt-transcribe", "gpt-live-transcribe")


def priced_by_length(model: str) -> bool:
    """Whether `model` is charged per minute: the whisper family, gpt-transcribe and gpt-live-transcribe."""
    return "whisper" in model or model.startswith(_LENGTH_PRICED)


def transcription_spend(model: str, *, role: str | None = None) -> Spend:
    """What transcribing with `model` can cost.  `role` is "input_transcription" inside a realtime session."""
    return Spend(model, _BY_LENGTH if priced_by_length(model) else _BY_TOKENS, role=role)
