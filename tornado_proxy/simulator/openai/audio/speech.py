"""POST /v1/audio/speech: bytes without usage, or events with it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from tornado_proxy.simulator.handlers.provider_errors import ProviderFault, openai_error
from tornado_proxy.simulator.handlers.provider_handler import ProviderHandler
from tornado_proxy.simulator.handlers.sse_event import Event
from tornado_proxy.simulator.json_values import Json, as_text, encode
from tornado_proxy.simulator.openai.audio.simulated_audio import (
    CONTENT_TYPES,
    SPOKEN_TOKENS_PER_SECOND,
    silence,
    spoken_seconds,
)
from tornado_proxy.simulator.openai.prompt import text_prompt

#: Bytes of audio in one chunk or event.
_CHUNK_BYTES = 8192


class Speech(ProviderHandler):
    """POST /v1/audio/speech."""

    async def post(self) -> None:
        """Speak the input; directives stand in it, or in `instructions`."""
        body = self.read_json()
        model = self.required_model(body.get("model"))
        spoken, instructions = as_text(body.get("input")), as_text(body.get("instructions"))
        if not spoken:
            raise ProviderFault(400, "input must not be empty", param="input")
        asked = await self.obey(f"{spoken}\n{instructions}")
        legacy, sse = model.startswith("tts-1"), body.get("stream_format") == "sse"
        if legacy and sse:
            raise ProviderFault(400, f"stream_format 'sse' is not supported by {model}", param="stream_format")
        format_ = as_text(body.get("response_format"), "mp3")
        seconds = spoken_seconds(text_prompt(spoken).tokens)
        audio = bytes(asked.size) if asked.size else silence(seconds, format_)
        if not sse:
            await self.send_chunks(_parts(audio), CONTENT_TYPES.get(format_, "application/octet-stream"))
            return
        read = text_prompt(spoken, instructions).tokens
        written = int(seconds * SPOKEN_TOKENS_PER_SECOND)
        usage: Json = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        await self.send_events(_events(audio, None if asked.no_usage else usage), _failure)


def _parts(audio: bytes) -> Iterator[bytes]:
    return (audio[start : start + _CHUNK_BYTES] for start in range(0, len(audio), _CHUNK_BYTES))


def _events(audio: bytes, usage: Json | None) -> Iterator[Event]:
    for part in _parts(audio):
        yield "", encode({"type": "speech.audio.delta", "audio": b64encode(part).decode()})
    done: Json = {"type": "speech.audio.done"}
    yield "", encode({**done, "usage": usage} if usage else done)


def _failure(_sent: int) -> list[Event]:
    return [("", encode(openai_error(500, "simulated failure")))]
