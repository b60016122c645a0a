"""Counts the audio packets of Ogg and MPEG-4 AAC files, because the lengths that such files state can be forged.

Ogg        the first packet names the codec: Opus, Vorbis (vorbis_packets.py) or FLAC (flac_frames.py)
Ogg Opus   each packet begins with its configuration, which gives its time (RFC 6716, section 3.1; RFC 3533, section 6)
MPEG-4     `stsz` and `trun` state the number of packets; one of AAC has 1,024 samples (ISO/IEC 14496-12, 14496-3)
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tornado_proxy.providers.openai.audio.flac_frames import MAX_HEADER_BYTES, add_frames, read_header, read_stream_rate
from tornado_proxy.providers.openai.audio.vorbis_packets import measure_vorbis, read_headers

#: Milliseconds of a frame by the lower bits of the configuration: SILK (0 to 11), hybrid (12 to 15), CELT.
_SILK, _HYBRID, _CELT = (10, 20, 40, 60), (10, 20), (2.5, 5, 10, 20)
_OPUS_HEADERS = (b"OpusHead", b"OpusTags")
_PAGE_HEADER_BYTES = 27
_OGG_PAGE = re.compile(rb"OggS")
_AAC_SAMPLES = 1024

#: Bytes of the longest header packet that is read.  Codebooks of Vorbis have some kilobytes.
_MAX_SETUP_BYTES = 256 * 1024

#: Sample entries of tracks that are no audio.
_OTHER_ENTRIES = frozenset(
    (
        b"avc1",
        b"avc3",
        b"hvc1",
        b"hev1",
        b"av01",
        b"vp08",
        b"vp09",
        b"mp4v",
        b"jpeg",
        b"png ",
        b"text",
        b"tx3g",
        b"mp4s",
    )
)
#: Bytes in which a decoder's configuration is searched, and that configuration: object type, 12 bytes of buffer and
#: bit rates, and the first bytes of the AudioSpecificConfig.  A length can have up to three bytes 0x80 before it.
_MAX_ESDS_BYTES = 100
_DECODER_CONFIG = re.compile(rb"\x04[\x80-\xff]{0,3}[\x00-\x7f](.).{12}\x05[\x80-\xff]{0,3}[\x02-\x7f](..)", re.DOTALL)
#: MPEG-4 audio and MPEG-2 AAC; AAC Main, LC, SSR, LTP, and with spectral band replication or parametric stereo.
_AAC_OBJECT_TYPES, _AAC_PROFILES = (0x40, 0x66, 0x67, 0x68), (1, 2, 3, 4, 5, 29)
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def measure_ogg(audio: memoryview) -> float | None:
    """Return the seconds of the packets in an Ogg file, None if their codec is not Opus, Vorbis or FLAC."""
    headers = list(itertools.islice(_ogg_packets(audio, _MAX_SETUP_BYTES), 3))
    first = headers[0] if headers else b""
    if first.startswith(b"OpusHead"):
        return measure_opus(audio)
    if first.startswith(b"\x01vorbis") and len(headers) == 3:
        stream = read_headers(first, headers[2])
        return None if stream is None else measure_vorbis(stream, _ogg_packets(audio, 1))
    if first.startswith(b"\x7fFLAC"):
        frames = map(read_header, _ogg_packets(audio, MAX_HEADER_BYTES))
        return add_frames(frames, read_stream_rate(first[17:]))
    return None


def measure_opus(audio: memoryview) -> float:
    """Return the seconds of the Opus packets in an Ogg file; 0 if there are none."""
    return sum(_opus_milliseconds(packet) for packet in _ogg_packets(audio, 8)) / 1000


def _ogg_packets(audio: memoryview, limit: int) -> Iterator[bytes]:
    """Yield the first bytes of each packet, at most `limit`."""
    position, packet, continued = _find_page(audio, 0), b"", False
    while 0 <= position <= len(audio) - _PAGE_HEADER_BYTES:
        start = position + _PAGE_HEADER_BYTES
        segments = audio[start : start + audio[position + 26]]
        start += len(segments)
        for length in segments:
            if len(packet) < limit:
                packet += audio[start : start + min(length, limit - len(packet))]
            continued = length == 255  # the packet goes on in the next segment
            if not continued:
                yield packet
                packet = b""
            start += length
        position = _find_page(audio, start)
    if continued:
        yield packet


def _find_page(audio: memoryview, start: int) -> int:
    """Return the position of the next Ogg page, -1 if there is none."""
    page = _OGG_PAGE.search(audio, start)
    return -1 if page is None else page.start()


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


def measure_aac(audio: memoryview) -> float | None:
    """Return the seconds of the AAC packets in an MPEG-4 file; 0 if there are none, None if it has other audio."""
    packets, rate = 0, 0
    for kind, content in _boxes(audio):
        if kind == b"moov":
            if not _has_aac_only(content):
                return None
            rate = rate or _sample_rate(content)
            packets += max((_number(content, at + 12) for at in _find_all(content, b"stsz")), default=0)
        elif kind == b"moof":
            packets += sum(_number(content, at + 8) for at in _find_all(content, b"trun"))
    return packets * _AAC_SAMPLES / rate if rate else 0


def _has_aac_only(moov: bytes) -> bool:
    """Return False if a track has audio of another codec than AAC, whose packets have other lengths."""
    entries = {moov[at + 16 : at + 20] for at in _find_all(moov, b"stsd")}
    config = _decoder_config(moov)
    return entries <= _OTHER_ENTRIES | {b"mp4a"} and (config is None or config.is_aac)


@dataclass(frozen=True, slots=True)
class _DecoderConfig:
    """The decoder's configuration; `rate` is 0 if it is written out, which no known encoder does."""

    is_aac: bool
    rate: int


def _decoder_config(moov: bytes) -> _DecoderConfig | None:
    """Return the configuration of the first AAC track, None if there is none.

    Source: ISO/IEC 14496-1, ES_Descriptor; 14496-3, AudioSpecificConfig.
    """
    at = moov.find(b"esds")
    match = _DECODER_CONFIG.search(moov, at, at + _MAX_ESDS_BYTES) if at >= 0 else None
    if match is None:
        return None
    object_type, config = match[1][0], int.from_bytes(match[2], "big")
    rate = config >> 7 & 15
    is_aac = object_type in _AAC_OBJECT_TYPES and config >> 11 in _AAC_PROFILES
    return _DecoderConfig(is_aac, _AAC_RATES[rate] if rate < len(_AAC_RATES) else 0)


def _boxes(audio: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each box at the top level; the audio itself is skipped."""
    position = 0
    while position + 8 <= len(audio):
        size, kind = struct.unpack_from(">I4s", audio, position)
        header = 8
        if size == 1 and position + 16 <= len(audio):
            (size,) = struct.unpack_from(">Q", audio, position + 8)
            header = 16
        end = len(audio) if size == 0 else position + max(size, header)
        yield kind, bytes(audio[position + header : end]) if kind in (b"moov", b"moof") else b""
        position = end


def _sample_rate(moov: bytes) -> int:
    """Return the sample rate of the first AAC track, 0 if there is none.

    A decoder takes that of its configuration.  If the track states another one (AudioSampleEntry of ISO/IEC 14496-12),
    the lower one counts: with spectral band replication the track states the doubled rate.
    """
    at = moov.find(b"mp4a")
    stated = struct.unpack_from(">H", moov, at + 28)[0] if 0 <= at <= len(moov) - 30 else 0
    config = _decoder_config(moov)
    rates = [rate for rate in (stated, config.rate if config is not None else 0) if rate]
    return min(rates, default=0)


def _find_all(content: bytes, name: bytes) -> Iterator[int]:
    at = content.find(name)
    while at >= 0:
        yield at
        at = content.find(name, at + 4)


def _number(content: bytes, at: int) -> int:
    return struct.unpack_from(">I", content, at)[0] if at + 4 <= len(content) else 0
