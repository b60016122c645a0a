from __future__ import annotations

import struct

import pytest

from tests.providers.openai.audio.test_audio_files import read
from tornado_proxy.providers.openai.audio.audio_packets import measure_ogg
from tornado_proxy.providers.openai.audio.vorbis_packets import measure_vorbis, read_headers


def test_file_of_two_lengths_is_as_long_as_its_packets() -> None:
    audio = read("vorbis.ogg")
    pages = audio.split(b"OggS")[1:]
    twice = audio + b"".join(b"OggS" + page for page in pages[2:])

    once_seconds, twice_seconds = measure_ogg(audio), measure_ogg(twice)

    assert once_seconds is not None
    assert twice_seconds is not None
    assert twice_seconds > 1.9 * once_seconds


def test_blocks_of_modes_that_cannot_be_read_count_as_long() -> None:
    identification = b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, 1, 16_000, 0, 0, 0, 0xA8, 1)  # blocks of 256 and 1,024
    stream = read_headers(identification, b"\x05vorbis" + bytes(40) + b"\x01")

    assert stream is not None
    assert measure_vorbis(stream, [b"\x00"] * 17) == pytest.approx(16 * 512 / 16_000)
