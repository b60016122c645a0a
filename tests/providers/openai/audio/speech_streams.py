"""SSE streams of speech as OpenAI sends them."""

from __future__ import annotations

import base64
import json

USAGE = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}


def speech_stream(audio: bytes, *, size: int = 7, done: bool = True) -> bytes:
    """Return a stream of `audio` in deltas of `size` bytes, with its last event unless `done` is False."""
    events: list[dict[str, object]] = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(audio[at : at + size]).decode()}
        for at in range(0, len(audio), size)
    ]
    if done:
        events.append({"type": "speech.audio.done", "usage": USAGE})
    return b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events)
