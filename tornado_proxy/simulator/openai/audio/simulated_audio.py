"""Silent audio of a known length, and the length of uploaded audio.

A token of text takes a quarter of a second to speak.  A second of audio is 20 tokens as output and 10 as input.  An
upload that is not a WAV file counts as 16,000 bytes a second (128 kbit/s).
"""

from __future__ import annotations

import struct
from math import ceil

OUTPUT_AUDIO_TOKENS_PER_S = 20
INPUT_AUDIO_TOKENS_PER_S = 10
_SECONDS_PER_TEXT_TOKEN = 0.25

#: Samples a second of the API's PCM audio, which is 16 bit and mono (text to speech guide).
_PCM_RATE = 24_000
_UPLOAD_BYTES_PER_SECOND = 16_000

#: A frame of MPEG-2 layer III, 128 kbit/s at 24 kHz, mono: 24 ms.
_MP3_FRAME = b"\xff\xf3\xc4\xc4" + bytes(380)
_MP3_FRAME_S = 0.024

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def speech_duration_s(tokens: int) -> float:
    """Return how many seconds it takes to speak `tokens`."""
    return tokens * _SECONDS_PER_TEXT_TOKEN


def make_silence(seconds: float, format_: str) -> bytes:
    """Return silence in the format; all compressed formats hold MP3 frames."""
    if format_ in ("pcm", "wav"):
        samples = bytes(2 * int(seconds * _PCM_RATE))
        return samples if format_ == "pcm" else _make_wav_header(len(samples)) + samples
    return _MP3_FRAME * ceil(seconds / _MP3_FRAME_S)


def measure_upload_s(upload: bytes) -> float:
    """Return the length of an uploaded file in seconds."""
    if upload[:4] == b"RIFF" and upload[8:12] == b"WAVE" and len(upload) >= 44:
        # The byte rate in the format chunk, which encoders write first, right after RIFF's 12 bytes.
        byte_rate = int.from_bytes(upload[28:32], "little")
        if byte_rate:
            return max(0, len(upload) - 44) / byte_rate
    return len(upload) / _UPLOAD_BYTES_PER_SECOND


def _make_wav_header(length: int) -> bytes:
    form = (b"RIFF", 36 + length, b"WAVE", b"fmt ", 16, 1, 1, _PCM_RATE, 2 * _PCM_RATE, 2, 16, b"data", length)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *form)
