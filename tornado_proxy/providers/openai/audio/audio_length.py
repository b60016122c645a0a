"""How long an uploaded recording is, for the answers that do not say it.

tinytag (pure Python, MIT) reads it from the file's own tables, without decoding.  Not taken: mutagen, which is GPL and
cannot read a WAV that was streamed; PyAV, 35 MB of C that would parse strangers' files in the process that holds the
provider keys.  tinytag knows flac, mp3/mpeg/mpga, m4a/mp4, ogg and wav; a webm file has no length here, and the caller
of this module refuses what could not be charged.
"""

from __future__ import annotations

import io
import math
import struct
from decimal import Decimal
from typing import BinaryIO, cast

from tinytag import TinyTag

#: Reads that one measurement may take, about 0.4 s: an Ogg file of 25 MB takes some 20,000.  A file of garbage would
#: be searched for an MP3 frame in steps of four bytes: 23 s for 25 MB.
_MAX_READS = 100_000
#: Bits per second that files do not exceed: lossy ones (Opus 510 kbit/s, AAC 576), lossless ones (stereo of 24 bits at
#: 96 kHz).  A file whose tables claim to be shorter than its size allows is not believed.
_MAX_LOSSY, _MAX_LOSSLESS = 640_000, 4_608_000
#: Bytes in which a WAV file's `data` chunk begins.
_WAV_HEAD_BYTES = 64 * 1024
#: WAVE_FORMAT_PCM and WAVE_FORMAT_IEEE_FLOAT: the formats whose length is their size.
_PCM_FORMATS = (1, 3)


def seconds_of(audio: memoryview) -> int | None:
    """Whole seconds of `audio`, rounded up as the provider does; None where its length cannot be known.

    A pure function of the bytes that may take tens of milliseconds: run it in a thread.
    """
    exact = _wav_seconds(audio) if bytes(audio[:4]) == b"RIFF" else _tagged_seconds(audio)
    return None if exact is None or not math.isfinite(exact) or exact <= 0 else math.ceil(exact)


def audio_seconds(audio: memoryview) -> Decimal | None:
    """The same as a quantity."""
    seconds = seconds_of(audio)
    return None if seconds is None else Decimal(seconds)


def _wav_seconds(audio: memoryview) -> float | None:
    """Length by size: a WAV that was streamed claims 2**32 - 1 bytes of data, and whoever lies claims few."""
    head = bytes(audio[:_WAV_HEAD_BYTES])
    form, data = head.find(b"fmt "), head.find(b"data")
    if form < 0 or data < 0 or len(head) < form + 24:
        return None
    format_tag, _, _, bytes_per_second = struct.unpack_from("<HHII", head, form + 8)
    if format_tag == 0xFFFE and len(head) >= form + 34:  # WAVE_FORMAT_EXTENSIBLE: the real one follows
        (format_tag,) = struct.unpack_from("<H", head, form + 32)
    if format_tag not in _PCM_FORMATS or not bytes_per_second:
        return _tagged_seconds(audio)
    return (len(audio) - data - 8) / float(bytes_per_second)


def _tagged_seconds(audio: memoryview) -> float | None:
    try:
        tag = TinyTag.get(file_obj=cast(BinaryIO, _Window(audio)), tags=False)
    except Exception:  # noqa: BLE001  # strangers' files make the parser raise far more than it declares
        return None
    fastest = _MAX_LOSSLESS if tag.is_lossless else _MAX_LOSSY
    return None if tag.duration is None or tag.duration * fastest < len(audio) * 8 else tag.duration


class _TooManyReads(Exception):
    """The file is not worth reading on."""


class _Window(io.RawIOBase):
    """A file over bytes that stand in a request's body, without a copy."""

    def __init__(self, audio: memoryview) -> None:
        self._audio = audio
        self._at = 0
        self._reads = 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise _TooManyReads
        end = len(self._audio) if size < 0 else self._at + size
        piece = bytes(self._audio[self._at : end])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._at, len(self._audio))[whence]
        self._at = min(max(0, base + offset), len(self._audio))
        return self._at

    def tell(self) -> int:
        return self._at
