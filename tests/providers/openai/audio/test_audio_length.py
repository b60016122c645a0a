from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.openai.audio.forms import wav
from tornado_proxy.providers.openai.audio.audio_length import measure_seconds

MP3_FRAME = bytes([0xFF, 0xF3, 0xC4, 0xC4]) + bytes(380)  # MPEG-2 layer III, 128 kbit/s, 24 kHz: 576 samples
M4A = (
    struct.pack(">I4s4sI", 16, b"ftyp", b"M4A ", 0)
    + struct.pack(">I4s", 116, b"moov")
    + struct.pack(">I4sIIIII", 108, b"mvhd", 0, 0, 0, 1000, 2345)  # 2,345 units of 1/1000 s
    + bytes(80)
)


def flac(seconds: float, rate: int = 44_100) -> bytes:
    packed = (rate << 44) | (0 << 41) | (15 << 36) | int(seconds * rate)
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80\x00\x00\x22" + info + bytes(100)


def ogg_opus(seconds: float) -> bytes:
    def page(flags: int, granule: int, number: int, content: bytes) -> bytes:
        return b"OggS\0" + struct.pack("<BqIIIBB", flags, granule, 1, number, 0, 1, len(content)) + content

    head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    return page(2, 0, 0, head) + page(0, 0, 1, tags) + page(4, int(seconds * 48_000), 2, bytes(100))


def wav_of_format(format_tag: int, format_tail: bytes, data: bytes) -> bytes:
    """Return a WAV file that states 16,000 bytes a second, and 20,000 samples at 8,000 a second."""
    fmt = struct.pack("<HHIIHH", format_tag, 1, 8000, 16_000, 2, 16) + format_tail
    fact = b"fact" + struct.pack("<II", 4, 20_000)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + fact + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("audio", "seconds"),
    [
        pytest.param(wav(3.7), 4, id="wav"),
        pytest.param(wav(4), 4, id="wav of whole seconds"),
        pytest.param(wav(4, claimed_bytes=0xFFFFFFFF), 4, id="streamed wav"),
        pytest.param(wav(4, claimed_bytes=2), 4, id="wav that claims to be short"),
        pytest.param(MP3_FRAME * 1000, 24, id="mp3"),
        pytest.param(b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + MP3_FRAME * 1001, 25, id="mp3 with a tag"),
        pytest.param(M4A, 3, id="m4a"),
        pytest.param(flac(2.2), 3, id="flac"),
        pytest.param(ogg_opus(9.5), 10, id="ogg opus"),
        pytest.param(flac(0.001) + bytes(1_000_000), None, id="flac that claims to be short"),
        pytest.param(flac(0), None, id="flac without a length"),
        pytest.param(b"\x1aE\xdf\xa3" + bytes(100), None, id="webm"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"RIFF", None, id="half a header"),
        pytest.param(wav(0), None, id="no audio"),
    ],
)
def test_length_is_in_whole_seconds_rounded_up(audio: bytes, seconds: int | None) -> None:
    assert measure_seconds(memoryview(audio)) == seconds


def forged_wav(seconds: float, **fields: int) -> bytes:
    """Return 16 bits at 16,000 a second, mono, whose format chunk states other bytes per second or block align."""
    stated = {"bytes_per_second": 32_000, "block_align": 2} | fields
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, stated["bytes_per_second"], stated["block_align"], 16)
    decoy = b"LIST" + struct.pack("<I", 24) + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 8, 192_000, 3_072_000, 16, 16)
    data = bytes(int(seconds * 32_000))
    body = b"WAVE" + decoy + b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def xing(frames: int) -> bytes:
    """Return an MP3 frame whose Xing header states a number of frames."""
    return (MP3_FRAME[:13] + b"Xing" + struct.pack(">II", 1, frames) + bytes(384))[:384]


@pytest.mark.parametrize(
    ("audio", "seconds"),
    [
        pytest.param(forged_wav(600, bytes_per_second=0xFFFFFFFF), 600, id="wav of many bytes per second"),
        pytest.param(forged_wav(600, block_align=1000), None, id="wav of a contradictory block"),
        pytest.param(xing(1292) + MP3_FRAME * 25_000, 601, id="mp3 whose Xing header states 31 s"),
        pytest.param(MP3_FRAME * 10 + bytes(5000) + MP3_FRAME * 990, 24, id="mp3 with a gap"),
        pytest.param(ogg_opus(1)[:-100] + b"\x0b\x05" + bytes(98), 1, id="ogg opus of 100 ms that states a second"),
        pytest.param(ogg_opus(0.01)[:-100] + b"\x1b\x30" + bytes(98), 3, id="ogg opus of 48 frames that states 10 ms"),
        pytest.param(flac(30, rate=16_000) + bytes(1_200_000), None, id="flac shorter than its samples"),
    ],
)
def test_forged_statements_do_not_shorten_a_recording(audio: bytes, seconds: int | None) -> None:
    assert measure_seconds(memoryview(audio)) == seconds


def test_other_wav_formats_than_plain_pcm_are_measured() -> None:
    extensible = wav_of_format(0xFFFE, struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14), bytes(40_000))
    adpcm = wav_of_format(0x11, b"", bytes(10_000))

    assert measure_seconds(memoryview(extensible)) == 3  # 40,000 bytes at 16,000 a second
    assert measure_seconds(memoryview(adpcm)) == 3  # 20,000 samples at 8,000 a second


def test_measuring_garbage_ends_after_a_limited_number_of_reads() -> None:
    assert measure_seconds(memoryview(b"ID3\x03\0\0\0\0\0\0" + b"\xff\x00" * 2_000_000)) is None


@given(
    head=st.sampled_from(
        [b"", wav(0.01)[:40], MP3_FRAME, M4A, flac(1)[:12], ogg_opus(1)[:60], b"RIFF\0\0\0\0WAVEfmt "]
    ),
    rest=st.binary(max_size=300),
)
def test_measuring_random_bytes_never_raises(head: bytes, rest: bytes) -> None:
    seconds = measure_seconds(memoryview(head + rest))
    assert seconds is None or seconds > 0
