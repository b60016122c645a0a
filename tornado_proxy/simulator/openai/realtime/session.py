"""A realtime conversation as values: the session, its items, and what a response reads, writes and is charged for."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from tornado_proxy.simulator.json_values import Json, as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.output import Answer
from tornado_proxy.simulator.model.tokens import count_tokens
from tornado_proxy.simulator.openai.audio.simulated_audio import (
    HEARD_TOKENS_PER_SECOND,
    SPOKEN_TOKENS_PER_SECOND,
    silence,
    spoken_seconds,
)

#: Input audio: 16 bit at 24 kHz, mono.
_BYTES_PER_SECOND = 48_000


@dataclass(frozen=True, slots=True)
class Heard:
    """What a response reads: disjoint text and audio tokens."""

    text: int = 0
    audio: int = 0


@dataclass(slots=True)
class RealtimeSession:
    """The state of one connection.  `read` is what the last response read: all of it is cached for the next one."""

    id: str
    model: str
    settings: Json = field(default_factory=dict)
    items: list[Json] = field(default_factory=list)
    buffer: bytearray = field(default_factory=bytearray)
    read: Heard = field(default_factory=Heard)

    def session_json(self) -> Json:
        """The session as `session.created` and `session.updated` show it."""
        defaults: Json = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": None},
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
            },
        }
        shown = _merged(defaults, self.settings)
        return {**shown, "object": "realtime.session", "id": self.id, "model": self.model}

    def update(self, changes: Mapping[str, object]) -> None:
        """Take over what a `session.update` says."""
        self.settings = _merged(self.settings, changes)

    @property
    def transcription_model(self) -> str:
        """The model that transcribes input audio, "" for none."""
        audio = as_object(as_object(self.settings.get("audio")).get("input"))
        return as_text(as_object(audio.get("transcription")).get("model"))

    def speaks(self, response: Mapping[str, object]) -> bool:
        """Whether a response is spoken: unless the request, or the session, asks for text."""
        modalities = response.get("output_modalities") or self.settings.get("output_modalities") or ["audio"]
        return "audio" in as_list(modalities)

    def count_input(self) -> Heard:
        """All text and audio of the conversation, instructions and tools."""
        text = count_tokens(as_text(self.settings.get("instructions")))
        text += sum(count_tokens(encode_text(tool)) for tool in as_list(self.settings.get("tools")))
        audio = 0
        for item in self.items:
            text += sum(count_tokens(as_text(item.get(key))) for key in ("name", "arguments", "output"))
            for part in map(as_object, as_list(item.get("content"))):
                text += count_tokens(as_text(part.get("text")))
                if part.get("type") == "output_audio":
                    text += count_tokens(as_text(part.get("transcript")))
                audio += heard_tokens(decoded_length(part.get("audio")))
        return Heard(text, audio)

    def usage_json(self, answer: Answer, *, spoken: bool) -> Json:
        """Usage of a response; what the one before it read is cached.  Details are parts of the figures above them."""
        now, cached = self.count_input(), self.read
        self.read = now
        text_out = answer.tokens
        audio_out = int(spoken_seconds(answer.text_tokens) * SPOKEN_TOKENS_PER_SECOND) if spoken else 0
        read, written = now.text + now.audio, text_out + audio_out
        return {
            "total_tokens": read + written,
            "input_tokens": read,
            "output_tokens": written,
            "input_token_details": {
                "text_tokens": now.text,
                "audio_tokens": now.audio,
                "image_tokens": 0,
                "cached_tokens": cached.text + cached.audio,
                "cached_tokens_details": {
                    "text_tokens": cached.text,
                    "audio_tokens": cached.audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }

    def last_user_text(self) -> tuple[str, bool]:
        """What the user wrote last, and whether tool results came after it."""
        answered = False
        for item in reversed(self.items):
            if item.get("type") == "function_call_output":
                answered = True
            elif item.get("role") == "user":
                parts = map(as_object, as_list(item.get("content")))
                return "\n".join(as_text(part.get("text")) for part in parts), answered
        return "", answered


def heard_tokens(audio_bytes: int) -> int:
    """Audio tokens of input audio of that length."""
    return ceil(audio_bytes / _BYTES_PER_SECOND * HEARD_TOKENS_PER_SECOND)


def heard_seconds(audio_bytes: int) -> int:
    """Whole seconds of input audio, rounded up."""
    return ceil(audio_bytes / _BYTES_PER_SECOND)


def decoded_length(audio: object) -> int:
    """Bytes of base64 audio; 0 for what is not."""
    return len(decode_audio(audio))


def decode_audio(audio: object) -> bytes:
    """The bytes of base64 audio, none for what is not."""
    try:
        return b64decode(as_text(audio), validate=True)
    except ValueError:
        return b""


def spoken_audio(tokens: int) -> str:
    """Silence that lasts as long as the tokens take to speak, base64."""
    return b64encode(silence(spoken_seconds(tokens), "pcm")).decode()


def _merged(old: Mapping[str, object], new: Mapping[str, object]) -> Json:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
