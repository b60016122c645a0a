"""The audio endpoints."""

from __future__ import annotations

from tornado_proxy.providers.contract import HttpEndpoint
from tornado_proxy.providers.openai.audio.speech import speech_endpoint
from tornado_proxy.providers.openai.audio.transcription import TRANSCRIPTIONS, TRANSLATIONS


def audio_endpoints(*, exact_speech: bool = True) -> tuple[HttpEndpoint, ...]:
    """Return the audio endpoints.  `exact_speech`: see speech_endpoint."""
    return (speech_endpoint(exact=exact_speech), TRANSCRIPTIONS, TRANSLATIONS)
