"""Sound without sound: silent audio of a known length, and the length of audio that was uploaded.

The rules: a token of text is spoken in a quarter of a second; a second of speech is 20 audio tokens when it is made
and 10 when it is heard.  An upload that is not a WAV file is taken for 16,000 bytes a second (128 kbit/s).
"""

from __future__ import annotations

import struct
from math import ceil

SPOKEN_TOKENS_PER_SECOND = 20
HEARD_TOKENS_PER_SECOND = 10
_SECONDS_PER_WORD = 0.25
_PCM_RATE = 24_000
_UPLOAD_BYTES_PER_SECOND = 16_000

#: A frame of MPEG-2 layer III, 128 kbit/s at 24 kHz, mono: 24 ms.
_MP3_FRAME = b"\xff\xf3\xc4\xc4" + bytes(380)
_MP3_FRAME_SECONDS = 0.024

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def spoken_seconds(tokens: int) -> float:
    """How long it takes to speak so many tokens."""
    return tokens * _SECONDS_PER_WORD


def silence(seconds: float, format_: str) -> bytes:
    """Silence in the format; the coded formats all hold MP3 frames."""
    if format_ in ("pcm", "wav"):
        samples = bytes(2 * int(seconds * _PCM_RATE))
        return samples if format_ == "pcm" else _wav_head(len(samples)) + samples
    return _MP3_FRAME * ceil(seconds / _MP3_FRAME_SECONDS)


def heard_seconds(upload: bytes) -> float:
    """The length of an uploaded file."""
    if upload[:4] == b"RIFF" and upload[8:12] == b"WAVE" and len(upload) >= 44:
        byte_rate = int.from_bytes(upload[28:32], "little")
        if byte_rate:
            return max(0, len(upload) - 44) / byte_rate
    return len(upload) / _UPLOAD_BYTES_PER_SECOND


def _wav_head(length: int) -> bytes:
    form = (b"RIFF", 36 + length, b"WAVE", b"fmt ", 16, 1, 1, _PCM_RATE, 2 * _PCM_RATE, 2, 16, b"data", length)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *form)
