from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.providers.openai.audio.audio_packets import measure_aac, measure_opus


def page(*packets: bytes) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + b"".join(packets)


def test_opus_packets_have_the_time_of_their_configuration() -> None:
    silk = b"\x08" + bytes(300)  # one frame of 20 ms
    celt = b"\xf9" + bytes(50)  # two frames of 20 ms
    many = b"\x03\x06" + bytes(50)  # six frames of 10 ms

    assert measure_opus(page(b"OpusHead") + page(b"OpusTags") + page(silk, celt) + page(many)) == pytest.approx(0.12)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


ENTRY = box(b"mp4a", bytes(24) + struct.pack(">HH", 16_000, 0))


def test_aac_packets_have_1024_samples() -> None:
    stsz = box(b"stsz", struct.pack(">III", 0, 0, 9375))
    whole = box(b"ftyp", b"M4A ") + box(b"mdat", b"trun" * 500) + box(b"moov", ENTRY + stsz)
    fragment = box(b"moof", box(b"trun", struct.pack(">II", 0, 625)))

    assert measure_aac(whole) == 600
    assert measure_aac(box(b"moov", ENTRY) + fragment + fragment) == 80


@given(st.binary(max_size=200), st.sampled_from([b"OggS", box(b"moov", ENTRY), b""]))
def test_random_bytes_never_raise(data: bytes, start: bytes) -> None:
    assert measure_opus(start + data) >= 0
    assert measure_aac(start + data) >= 0
