"""Measures an MP3 file by walking its frames, because the counts that a file states of itself can be forged.

Each frame header states bit rate and sample rate, which give the length of the frame in bytes and in samples.  A
decoder walks the frames in the same way and ignores a Xing or VBRI header, so the walk finds the length that it plays.

Source: ISO/IEC 11172-3 and 13818-3, "Header"; the extension MPEG 2.5.
"""

from __future__ import annotations

import re

#: Frames of one file.  25 MB, the provider's limit, in frames of 24 bytes, the shortest; takes about a second.
MAX_FRAMES = 1_100_000
#: Bytes of a file in which no frame is searched twice: a frame counts only if another one or the end follows it.
_HEADER_BYTES = 4
_ID3_BYTES = 10
#: The first byte of a frame.
_SYNC = re.compile(rb"\xff")

#: Samples per second by version bits: MPEG 2.5, (reserved), 2, 1.
_RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
#: Kilobits per second by bit rate index 1 to 14.
_BIT_RATES_1 = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LATER = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BIT_RATES_2 = {3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256), 2: _LATER, 1: _LATER}


def measure_mp3(audio: memoryview) -> float | None:
    """Return the seconds of the frames in `audio`; None if it contains none, or too many."""
    position, frames = _after_id3(audio), 0
    samples_by_rate: dict[int, int] = {}  # a sum of seconds would round thousands of times
    while position + _HEADER_BYTES <= len(audio):
        frame = _read_header(audio, position)
        if frame is None:
            sync = _SYNC.search(audio, position + 1)
            if sync is None:
                break
            position = sync.start()
            continue
        frame_bytes, samples, rate = frame
        following = position + frame_bytes
        # Any two bytes can look like a header; a real frame is followed by another one.
        if frames == 0 and following + _HEADER_BYTES <= len(audio) and _read_header(audio, following) is None:
            position += 1
            continue
        frames += 1
        if frames > MAX_FRAMES:
            return None
        samples_by_rate[rate] = samples_by_rate.get(rate, 0) + samples
        position = following
    return sum(samples / rate for rate, samples in samples_by_rate.items()) if frames else None


def _after_id3(audio: memoryview) -> int:
    """Return the start of the audio behind a tag (ID3v2: its size is four times seven bits)."""
    if bytes(audio[:3]) != b"ID3" or len(audio) < _ID3_BYTES:
        return 0
    size = 0
    for byte in audio[6:_ID3_BYTES]:
        size = size << 7 | byte & 0x7F
    return min(_ID3_BYTES + size, len(audio))


def _read_header(audio: memoryview, position: int) -> tuple[int, int, int] | None:
    """Return bytes, samples and sample rate of the frame at `position`, None if there is no header of one."""
    first, second, third = audio[position : position + 3]
    version, layer = second >> 3 & 3, second >> 1 & 3
    bit_rate_index, rate_index = third >> 4, third >> 2 & 3
    if first != 0xFF or second < 0xE0 or version == 1 or layer == 0:
        return None
    if bit_rate_index in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[version][rate_index]
    bit_rate = (_BIT_RATES_1 if version == 3 else _BIT_RATES_2)[layer][bit_rate_index - 1] * 1000
    padding = third >> 1 & 1
    if layer == 3:
        return (12 * bit_rate // rate + padding) * 4, 384, rate
    samples = 576 if layer == 1 and version != 3 else 1152
    return samples // 8 * bit_rate // rate + padding, samples, rate
