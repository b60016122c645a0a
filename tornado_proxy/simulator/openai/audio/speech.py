"""POST /v1/audio/speech: audio bytes without usage, or events with usage."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from tornado_proxy.simulator.handlers.provider_errors import ProviderError, make_openai_failure
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_text, encode
from tornado_proxy.simulator.openai.audio.simulated_audio import (
    CONTENT_TYPES,
    OUTPUT_AUDIO_TOKENS_PER_S,
    make_silence,
    speech_duration_s,
)
from tornado_proxy.simulator.openai.prompt import make_text_prompt

#: Bytes of audio in a chunk or event.
_CHUNK_BYTES = 8192


class Speech(ProviderHandler):
    """POST /v1/audio/speech."""

    async def post(self) -> None:
        """Respond with silence that lasts as long as speaking the input.

        Directives are read from the input and from `instructions`.
        """
        body = self.read_json()
        model = self.check_model(body.get("model"))
        text, instructions = as_text(body.get("input")), as_text(body.get("instructions"))
        if not text:
            raise ProviderError(400, "input must not be empty", param="input")
        directives = await self.apply_directives(f"{text}\n{instructions}")
        # tts-1 and tts-1-hd do not stream events (audio reference).
        legacy, sse = model.startswith("tts-1"), body.get("stream_format") == "sse"
        if legacy and sse:
            raise ProviderError(400, f"stream_format 'sse' is not supported by {model}", param="stream_format")
        format_ = as_text(body.get("response_format"), "mp3")
        seconds = speech_duration_s(make_text_prompt(text).tokens)
        audio = bytes(directives.size) if directives.size else make_silence(seconds, format_)
        if not sse:
            await self.send_chunks(_split_audio(audio), CONTENT_TYPES.get(format_, "application/octet-stream"))
            return
        input_tokens = make_text_prompt(text, instructions).tokens
        output_tokens = int(seconds * OUTPUT_AUDIO_TOKENS_PER_S)
        usage: Json = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
        await self.send_events(_make_events(audio, None if directives.no_usage else usage), make_openai_failure)


def _split_audio(audio: bytes) -> Iterator[bytes]:
    return (audio[start : start + _CHUNK_BYTES] for start in range(0, len(audio), _CHUNK_BYTES))


def _make_events(audio: bytes, usage: Json | None) -> Iterator[Event]:
    for chunk in _split_audio(audio):
        yield "", encode({"type": "speech.audio.delta", "audio": b64encode(chunk).decode()})
    done: Json = {"type": "speech.audio.done"}
    yield "", encode({**done, "usage": usage} if usage else done)
