"""Measures the length of an uploaded recording, for responses that do not state it.

tinytag (pure Python, MIT) reads it from the file's own tables, without decoding.  Rejected: mutagen, which is GPL and
cannot read a streamed WAV; PyAV, 35 MB of C that would parse strangers' files in the process that holds the provider
keys.  But what a file states of itself can be forged, and a short length is a small bill.  So the samples count: WAV by
bytes and sample format, MP3 by its frames, FLAC, Ogg and AAC by their frames and packets if these are longer than the
stated length.  The length of anything else, WebM and other codecs in MP4 too, is unknown; the caller rejects such a
request if nothing else could state the charge.
"""

from __future__ import annotations

import io
import math
import struct
from typing import BinaryIO, cast

from tinytag import TinyTag

from tornado_proxy.providers.openai.audio.audio_packets import measure_aac, measure_ogg
from tornado_proxy.providers.openai.audio.flac_frames import measure_flac
from tornado_proxy.providers.openai.audio.mp3_frames import measure_mp3

#: Reads of one measurement, about 0.4 s: an Ogg file of 25 MB, the provider's limit, takes some 20,000.  In a file of
#: garbage tinytag searches for an MP3 frame in steps of four bytes, which takes 23 s for 25 MB without this limit.
_MAX_READS = 100_000
#: Bits per second that no recording exceeds: lossy formats (Opus 510 kbit/s, RFC 6716; AAC 576), lossless ones
#: (stereo of 24 bits at 96 kHz).  A file whose tables claim a shorter time than its size allows would be charged too
#: little, so its length counts as unknown.
_MAX_LOSSY_BITS_PER_SECOND, _MAX_LOSSLESS_BITS_PER_SECOND = 640_000, 4_608_000
#: Bytes in which the `data` chunk of a WAV file begins; chunks before it hold the format and short tags.
_WAV_HEADER_BYTES = 64 * 1024
#: PCM, IEEE float, A-law and mu-law: the formats whose size tells their length.
_CONSTANT_FORMATS = (1, 3, 6, 7)
#: ADPCM of Microsoft and of IMA.
_ADPCM_FORMATS = (2, 0x11)
#: Bytes of a format chunk up to the bits per sample, and up to the format of WAVE_FORMAT_EXTENSIBLE.
_MIN_FORMAT_BYTES, _FORMAT_BYTES = 16, 26
#: Seconds that a decoder can skip at the begin and end of an honest file: two packets of AAC at 8 kHz.
_MAX_TRIMMED_S = 0.3
#: The first bytes of WebM, whose length tinytag cannot read.
_WEBM = b"\x1a\x45\xdf\xa3"
#: WAVE_FORMAT_EXTENSIBLE: the actual format follows in its own field (Microsoft, WAVEFORMATEXTENSIBLE).
_EXTENSIBLE_FORMAT = 0xFFFE


def measure_seconds(audio: memoryview) -> int | None:
    """Return the whole seconds of `audio`, rounded up as the provider does; None if the length is unknown.

    A pure function of the bytes that may take a second: run it in a thread.
    """
    exact = _measure(audio)
    return None if exact is None or not math.isfinite(exact) or exact <= 0 else math.ceil(exact)


def _measure(audio: memoryview) -> float | None:
    magic = bytes(audio[:12])
    if magic.startswith(b"RIFF"):
        return _wav_seconds(audio)
    if magic.startswith(b"OggS"):
        return _at_least(_tagged_seconds(audio), measure_ogg(audio))
    if magic[4:8] == b"ftyp":
        return _at_least(_tagged_seconds(audio), measure_aac(audio))
    if magic.startswith(b"fLaC"):
        return _at_least(_tagged_seconds(audio), measure_flac(audio))
    return None if magic.startswith(_WEBM) else measure_mp3(audio)


def _at_least(stated: float | None, counted: float | None) -> float | None:
    """Return the length that a file states, or the one of its packets if that is longer: a decoder plays these.

    None if the packets cannot be counted: what the file states can be forged.
    """
    if counted is None or not counted:
        return None if counted is None else stated
    return stated if stated is not None and counted <= stated + _MAX_TRIMMED_S else max(stated or 0, counted)


def _wav_seconds(audio: memoryview) -> float | None:
    """Return the length by the file's size and its sample format; None for a compressed or contradictory format.

    Neither the size nor the bytes per second that a header states is of use: a streamed file states 2**32 - 1 bytes,
    and a forged one can state anything.
    """
    position, sample_format = 12, None
    while position + 8 <= min(len(audio), _WAV_HEADER_BYTES):
        name, size = bytes(audio[position : position + 4]), struct.unpack_from("<I", audio, position + 4)[0]
        position += 8
        if name == b"data":
            return None if sample_format is None else (len(audio) - position) / float(sample_format)
        if name == b"fmt ":
            if sample_format is not None:
                return None  # two formats: which one the decoder takes is not known
            sample_format = _bytes_per_second(bytes(audio[position : position + min(size, _FORMAT_BYTES)]))
        position += size + size % 2
    return None


def _bytes_per_second(chunk: bytes) -> int | None:
    """Return the bytes of one second in the format of a WAV file, None if its samples have no constant size."""
    if len(chunk) < _MIN_FORMAT_BYTES:
        return None
    format_tag, channels, rate, _, block_align, bits = struct.unpack_from("<HHIIHH", chunk)
    if format_tag in _ADPCM_FORMATS:
        # Four bits a sample and some bytes for each block, which are counted as samples: an upper bound.
        return channels * rate // 2 or None
    if format_tag == _EXTENSIBLE_FORMAT and len(chunk) >= _FORMAT_BYTES:
        (format_tag,) = struct.unpack_from("<H", chunk, 24)
    frame_bytes = channels * -(-bits // 8)
    consistent = format_tag in _CONSTANT_FORMATS and frame_bytes == block_align and frame_bytes * rate
    return frame_bytes * rate if consistent else None


def _tagged_seconds(audio: memoryview) -> float | None:
    try:
        tag = TinyTag.get(file_obj=cast(BinaryIO, _MemoryFile(audio)), tags=False)
    except Exception:  # noqa: BLE001  # strangers' files make the parser raise far more than it declares
        return None
    max_rate = _MAX_LOSSLESS_BITS_PER_SECOND if tag.is_lossless else _MAX_LOSSY_BITS_PER_SECOND
    if tag.is_lossless and tag.samplerate and tag.channels and tag.bitdepth:
        # A lossless file is smaller than its samples; a tenth is for tags and pictures.
        max_rate = min(max_rate, int(tag.samplerate * tag.channels * tag.bitdepth * 1.1))
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
