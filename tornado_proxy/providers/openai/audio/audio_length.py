"""Measures the length of an uploaded recording, for responses that do not state it.

tinytag (pure Python, MIT) reads it from the file's own tables, without decoding.  Rejected: mutagen, which is GPL and
cannot read a streamed WAV; PyAV, 35 MB of C that would parse strangers' files in the process that holds the provider
keys.  tinytag reads flac, mp3/mpeg/mpga, m4a/mp4, ogg and wav.  It cannot read webm, whose length stays unknown; the
caller rejects such a request if nothing else could state the charge.
"""

from __future__ import annotations

import io
import math
import struct
from typing import BinaryIO, cast

from tinytag import TinyTag

#: Reads of one measurement, about 0.4 s: an Ogg file of 25 MB, the provider's limit, takes some 20,000.  In a file of
#: garbage tinytag searches for an MP3 frame in steps of four bytes, which takes 23 s for 25 MB without this limit.
_MAX_READS = 100_000
#: Bits per second that no recording exceeds: lossy formats (Opus 510 kbit/s, RFC 6716; AAC 576), lossless ones
#: (stereo of 24 bits at 96 kHz).  A file whose tables claim a shorter time than its size allows would be charged too
#: little, so its length counts as unknown.
_MAX_LOSSY_BITS_PER_SECOND, _MAX_LOSSLESS_BITS_PER_SECOND = 640_000, 4_608_000
#: Bytes in which the `data` chunk of a WAV file begins; chunks before it hold the format and short tags.
_WAV_HEADER_BYTES = 64 * 1024
#: WAVE_FORMAT_PCM and WAVE_FORMAT_IEEE_FLOAT: the formats whose size tells their length.
_PCM_FORMATS = (1, 3)
#: WAVE_FORMAT_EXTENSIBLE: the actual format follows in its own field (Microsoft, WAVEFORMATEXTENSIBLE).
_EXTENSIBLE_FORMAT = 0xFFFE


def measure_seconds(audio: memoryview) -> int | None:
    """Return the whole seconds of `audio`, rounded up as the provider does; None if the length is unknown.

    A pure function of the bytes that may take tens of milliseconds: run it in a thread.
    """
    exact = _wav_seconds(audio) if bytes(audio[:4]) == b"RIFF" else _tagged_seconds(audio)
    return None if exact is None or not math.isfinite(exact) or exact <= 0 else math.ceil(exact)


def _wav_seconds(audio: memoryview) -> float | None:
    """Return the length by the file's size.

    The size that a WAV header states is useless: a streamed file states 2**32 - 1 bytes, and a forged one few.
    """
    header = bytes(audio[:_WAV_HEADER_BYTES])
    format_start, data_start = header.find(b"fmt "), header.find(b"data")
    if format_start < 0 or data_start < 0 or len(header) < format_start + 24:
        return None
    format_tag, _, _, bytes_per_second = struct.unpack_from("<HHII", header, format_start + 8)
    if format_tag == _EXTENSIBLE_FORMAT and len(header) >= format_start + 34:
        (format_tag,) = struct.unpack_from("<H", header, format_start + 32)
    if format_tag not in _PCM_FORMATS or not bytes_per_second:
        return _tagged_seconds(audio)
    return (len(audio) - data_start - 8) / float(bytes_per_second)


def _tagged_seconds(audio: memoryview) -> float | None:
    try:
        tag = TinyTag.get(file_obj=cast(BinaryIO, _MemoryFile(audio)), tags=False)
    except Exception:  # noqa: BLE001  # strangers' files make the parser raise far more than it declares
        return None
    max_rate = _MAX_LOSSLESS_BITS_PER_SECOND if tag.is_lossless else _MAX_LOSSY_BITS_PER_SECOND
    return None if tag.duration is None or tag.duration * max_rate < len(audio) * 8 else tag.duration


class _TooManyReads(Exception):
    """The measurement takes too long."""


class _MemoryFile(io.RawIOBase):
    """A file over the bytes of a request's body, without a copy."""

    def __init__(self, audio: memoryview) -> None:
        self._audio = audio
        self._position = 0
        self._reads = 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise _TooManyReads
        end = len(self._audio) if size < 0 else self._position + size
        data = bytes(self._audio[self._position : end])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, len(self._audio))[whence]
        self._position = min(max(0, base + offset), len(self._audio))
        return self._position

    def tell(self) -> int:
        return self._position
