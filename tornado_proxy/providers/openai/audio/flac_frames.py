"""Reads the headers of FLAC frames, because the number of samples that a FLAC file states can be forged.

Source: RFC 9639, section 9.1 (frame header); tables 14 (block sizes) and 15 (sample rates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: The sync code, a reserved bit and the blocking strategy.
_SYNC = re.compile(rb"\xff[\xf8\xf9]")

#: Bytes of STREAMINFO that are read.
_STREAM_INFO_BYTES = 13

#: Bytes of the longest header, with its checksum.
MAX_HEADER_BYTES = 16

_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
#: Bytes of a rate at the end of the header, and its unit in Hz, by the rate bits.
_LATER_RATES = {12: (1, 1000), 13: (2, 1), 14: (2, 10)}
#: The bytes of the longest coded number.
_MAX_NUMBER_BYTES = 7


def _shift(value: int) -> int:
    for _ in range(8):
        value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


_CRC8 = tuple(map(_shift, range(256)))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `rate` is 0 if the file's own sample rate holds."""

    samples: int
    rate: int


def measure_flac(audio: memoryview) -> float:
    """Return the seconds of the frames in a FLAC file; 0 if there are none.

    Other bytes can look like a header once in 20 MB.
    """
    return add_frames(_find_frames(audio), read_stream_rate(bytes(audio[8 : 8 + _STREAM_INFO_BYTES])))


def add_frames(frames: Iterable[Frame | None], stated_rate: int) -> float:
    """Return the seconds of frames in a file that states a sample rate.

    If a header states another one, the lower one counts: the length is greater.
    """
    samples_by_rate: dict[int, int] = {}  # a sum of seconds would round thousands of times
    for frame in frames:
        rates = [rate for rate in (frame.rate, stated_rate) if rate] if frame is not None else []
        if frame is not None and rates:
            samples_by_rate[min(rates)] = samples_by_rate.get(min(rates), 0) + frame.samples
    return sum(samples / rate for rate, samples in samples_by_rate.items())


def read_stream_rate(stream_info: bytes) -> int:
    """Return the sample rate of the metadata block STREAMINFO, 0 if it is cut off (RFC 9639, section 8.2)."""
    return int.from_bytes(stream_info[10:13], "big") >> 4 if len(stream_info) >= 13 else 0


def read_header(header: bytes) -> Frame | None:
    """Return the frame that begins with `header`, None if these bytes are no header."""
    if _SYNC.match(header) is None or len(header) < 6:
        return None
    block_bits, rate_bits = header[2] >> 4, header[2] & 15
    number_bytes = _count_number_bytes(header[4])
    if block_bits == 0 or rate_bits == 15 or header[3] & 1 or header[3] >> 4 > 10 or not number_bytes:
        return None
    at = 4 + number_bytes
    block_bytes = {6: 1, 7: 2}.get(block_bits, 0)
    rate_bytes, unit = _LATER_RATES.get(rate_bits, (0, 0))
    end = at + block_bytes + rate_bytes
    if len(header) <= end or _crc8(header[:end]) != header[end]:
        return None
    rate = int.from_bytes(header[at + block_bytes : end], "big") * unit if rate_bytes else _RATES[rate_bits]
    return Frame(_block_samples(block_bits, header[at : at + block_bytes]), rate)


def _find_frames(audio: memoryview) -> Iterator[Frame]:
    for sync in _SYNC.finditer(audio):
        frame = read_header(bytes(audio[sync.start() : sync.start() + MAX_HEADER_BYTES]))
        if frame is not None:
            yield frame


def _block_samples(bits: int, later: bytes) -> int:
    if later:
        return int.from_bytes(later, "big") + 1
    if bits == 1:
        return 192
    return 576 << (bits - 2) if bits < 6 else 256 << (bits - 8)


def _count_number_bytes(first: int) -> int:
    """Return the length of the coded number that begins with the byte `first`, 0 if none does."""
    if first < 0x80:
        return 1
    ones = 8 - (first ^ 0xFF).bit_length()
    return ones if 2 <= ones <= _MAX_NUMBER_BYTES else 0


def _crc8(data: bytes) -> int:
    """Return the checksum with the polynomial x^8 + x^2 + x + 1 (RFC 9639, section 9.1.8)."""
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
