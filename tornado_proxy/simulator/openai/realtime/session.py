"""The state of a realtime session: its settings, its items, and the usage of its responses."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from tornado_proxy.simulator.json_values import Json, as_list, as_object, as_text, encode_text
from tornado_proxy.simulator.model.output import ModelOutput
from tornado_proxy.simulator.model.tokens import count_tokens
from tornado_proxy.simulator.openai.audio.simulated_audio import (
    INPUT_AUDIO_TOKENS_PER_S,
    OUTPUT_AUDIO_TOKENS_PER_S,
    make_silence,
    speech_duration_s,
)

#: Input audio is 16 bit at 24 kHz, mono (realtime guide).
INPUT_AUDIO_BYTES_PER_S = 48_000


@dataclass(frozen=True, slots=True)
class InputTokens:
    """The input tokens of a response: disjoint text and audio tokens."""

    text: int = 0
    audio: int = 0


@dataclass(slots=True)
class RealtimeSession:
    """The state of a session.

    Attributes:
        buffer: input audio that is not committed yet.
        cached: the input tokens of the last response; all of them are cached for the next one.
    """

    id: str
    model: str
    settings: Json = field(default_factory=dict)
    items: list[Json] = field(default_factory=list)
    buffer: bytearray = field(default_factory=bytearray)
    cached: InputTokens = field(default_factory=InputTokens)

    def session_json(self) -> Json:
        """Return the session in the format of `session.created` and `session.updated`."""
        # The defaults that clients rely on; settings of the client replace them at any depth.
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
        shown = _merge(defaults, self.settings)
        return {**shown, "object": "realtime.session", "id": self.id, "model": self.model}

    def update(self, changes: Mapping[str, object]) -> None:
        """Apply the changes of a `session.update`."""
        self.settings = _merge(self.settings, changes)

    @property
    def transcription_model(self) -> str:
        """The model that transcribes input audio, "" if none does."""
        audio = as_object(as_object(self.settings.get("audio")).get("input"))
        return as_text(as_object(audio.get("transcription")).get("model"))

    def is_spoken(self, response: Mapping[str, object]) -> bool:
        """Return True if a response is audio: the default, unless the request or the session asks for text."""
        modalities = response.get("output_modalities") or self.settings.get("output_modalities") or ["audio"]
        return "audio" in as_list(modalities)

    def count_input(self) -> InputTokens:
        """Return the tokens of all items, the instructions and the tools."""
        text = count_tokens(as_text(self.settings.get("instructions")))
        text += sum(count_tokens(encode_text(tool)) for tool in as_list(self.settings.get("tools")))
        audio = 0
        for item in self.items:
            text += sum(count_tokens(as_text(item.get(key))) for key in ("name", "arguments", "output"))
            for part in map(as_object, as_list(item.get("content"))):
                text += count_tokens(as_text(part.get("text")))
                # Output audio is kept as its transcript, so it counts as text when it is read again.
                if part.get("type") == "output_audio":
                    text += count_tokens(as_text(part.get("transcript")))
                audio += count_input_audio_tokens(len(decode_audio(part.get("audio"))))
        return InputTokens(text, audio)

    def usage_json(self, output: ModelOutput, *, spoken: bool) -> Json:
        """Return the usage of a response; the input tokens of the response before it are cached.

        Cached tokens are a part of the text and audio tokens.
        """
        read, cached = self.count_input(), self.cached
        self.cached = read
        text_tokens = output.tokens
        # An audio response is charged for its transcript as text and for its sound as audio.
        audio_tokens = int(speech_duration_s(output.text_tokens) * OUTPUT_AUDIO_TOKENS_PER_S) if spoken else 0
        input_tokens, output_tokens = read.text + read.audio, text_tokens + audio_tokens
        return {
            "total_tokens": input_tokens + output_tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "input_token_details": {
                "text_tokens": read.text,
                "audio_tokens": read.audio,
                "image_tokens": 0,
                "cached_tokens": cached.text + cached.audio,
                "cached_tokens_details": {
                    "text_tokens": cached.text,
                    "audio_tokens": cached.audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": text_tokens, "audio_tokens": audio_tokens},
        }

    def find_user_text(self) -> tuple[str, bool]:
        """Return the last text of the user, and True if tool results follow it."""
        tools_answered = False
        # From the end: tool results after the last user message make its `tool` directives done.
        for item in reversed(self.items):
            if item.get("type") == "function_call_output":
                tools_answered = True
            elif item.get("role") == "user":
                parts = map(as_object, as_list(item.get("content")))
                return "\n".join(as_text(part.get("text")) for part in parts), tools_answered
        return "", tools_answered


def count_input_audio_tokens(audio_bytes: int) -> int:
    """Return the tokens of input audio."""
    return ceil(audio_bytes / INPUT_AUDIO_BYTES_PER_S * INPUT_AUDIO_TOKENS_PER_S)


def count_input_audio_seconds(audio_bytes: int) -> int:
    """Return the length of input audio in seconds, rounded up."""
    return ceil(audio_bytes / INPUT_AUDIO_BYTES_PER_S)


def decode_audio(audio: object) -> bytes:
    """Return the bytes of base64 audio, or no bytes if `audio` is not base64."""
    try:
        return b64decode(as_text(audio), validate=True)
    except ValueError:
        return b""


def make_speech_audio(tokens: int) -> str:
    """Return silence that lasts as long as speaking `tokens`, in base64."""
    return b64encode(make_silence(speech_duration_s(tokens), "pcm")).decode()


def _merge(old: Mapping[str, object], new: Mapping[str, object]) -> Json:
    """Return `old` with the members of `new`; objects in both are merged, at any depth."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = _merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
