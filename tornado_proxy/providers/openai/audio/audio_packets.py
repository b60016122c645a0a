"""Counts the audio packets of Ogg Opus and MPEG-4 AAC files, because the lengths that such files state can be forged.

Ogg Opus   each packet begins with its configuration, which gives its time (RFC 6716, section 3.1; RFC 3533, section 6)
MPEG-4     `stsz` and `trun` state the number of packets; one of AAC has 1,024 samples (ISO/IEC 14496-12, 14496-3)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: Milliseconds of a frame by the lower bits of the configuration: SILK (0 to 11), hybrid (12 to 15), CELT.
_SILK, _HYBRID, _CELT = (10, 20, 40, 60), (10, 20), (2.5, 5, 10, 20)
_OPUS_HEADERS = (b"OpusHead", b"OpusTags")
_PAGE_HEADER_BYTES = 27
_AAC_SAMPLES = 1024


def measure_opus(audio: bytes) -> float:
    """Return the seconds of the Opus packets in an Ogg file; 0 if there are none."""
    return sum(_opus_milliseconds(packet) for packet in _ogg_packets(audio)) / 1000


def _ogg_packets(audio: bytes) -> Iterator[bytes]:
    """Yield the first bytes of each packet, as many as tell its kind."""
    position, continued = audio.find(b"OggS"), False
    while 0 <= position <= len(audio) - _PAGE_HEADER_BYTES:
        segments = audio[position + _PAGE_HEADER_BYTES :][: audio[position + 26]]
        start = position + _PAGE_HEADER_BYTES + len(segments)
        for length in segments:
            if not continued:
                yield audio[start : start + 8]
            continued = length == 255  # the packet goes on in the next segment
            start += length
        position = audio.find(b"OggS", start)


def _opus_milliseconds(packet: bytes) -> float:
    if not packet or packet.startswith(_OPUS_HEADERS):
        return 0
    configuration, code = packet[0] >> 3, packet[0] & 3
    if configuration < 12:
        frame = _SILK[configuration & 3]
    elif configuration < 16:
        frame = _HYBRID[configuration & 1]
    else:
        return _CELT[configuration & 3] * _frame_count(packet, code)
    return frame * _frame_count(packet, code)


def _frame_count(packet: bytes, code: int) -> int:
    if code < 3:
        return 1 if code == 0 else 2
    return packet[1] & 0x3F if len(packet) > 1 else 0


def measure_aac(audio: bytes) -> float:
    """Return the seconds of the AAC packets in an MPEG-4 file; 0 if there are none."""
    packets, rate = 0, 0
    for kind, content in _boxes(audio):
        if kind == b"moov":
            rate = rate or _sample_rate(content)
            packets += max((_number(content, at + 12) for at in _find_all(content, b"stsz")), default=0)
        elif kind == b"moof":
            packets += sum(_number(content, at + 8) for at in _find_all(content, b"trun"))
    return packets * _AAC_SAMPLES / rate if rate else 0


def _boxes(audio: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each box at the top level; the audio itself is skipped."""
    position = 0
    while position + 8 <= len(audio):
        size, kind = struct.unpack_from(">I4s", audio, position)
        header = 8
        if size == 1 and position + 16 <= len(audio):
            (size,) = struct.unpack_from(">Q", audio, position + 8)
            header = 16
        end = len(audio) if size == 0 else position + max(size, header)
        yield kind, audio[position + header : end] if kind in (b"moov", b"moof") else b""
        position = end


def _sample_rate(moov: bytes) -> int:
    """Return the sample rate of the first AAC track, 0 if there is none (ISO/IEC 14496-12, AudioSampleEntry)."""
    at = moov.find(b"mp4a")
    return struct.unpack_from(">H", moov, at + 28)[0] if 0 <= at <= len(moov) - 30 else 0


def _find_all(content: bytes, name: bytes) -> Iterator[int]:
    at = content.find(name)
    while at >= 0:
        yield at
        at = content.find(name, at + 4)


def _number(content: bytes, at: int) -> int:
    return struct.unpack_from(">I", content, at)[0] if at + 4 <= len(content) else 0
