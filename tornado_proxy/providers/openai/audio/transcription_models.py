"""Tells whether a speech recognition model is priced by the length of the audio or by tokens.

The family of the model decides.  The result only chooses which prices admission requires: a model of an unknown family
must have token prices, or its requests are rejected.

Source: OpenAI pricing page, "Transcription and speech generation".
"""

from __future__ import annotations

from tornado_proxy.domain.request import Spend
from tornado_proxy.domain.usage import Meter

_LENGTH_METERS = frozenset({Meter.AUDIO_SECONDS})
_TOKEN_METERS = frozenset({Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT})
_LENGTH_PRICED_PREFIXES = ("gpt-transcribe", "gpt-live-transcribe")


def is_priced_by_length(model: str) -> bool:
    """Return True if `model` is charged per minute: the whisper family, gpt-transcribe and gpt-live-transcribe."""
    return "whisper" in model or model.startswith(_LENGTH_PRICED_PREFIXES)


def transcription_spend(model: str, *, role: str | None = None) -> Spend:
    """Return the spend of transcribing with `model`.  `role` is "input_transcription" inside a realtime session."""
    return Spend(model, _LENGTH_METERS if is_priced_by_length(model) else _TOKEN_METERS, role=role)
