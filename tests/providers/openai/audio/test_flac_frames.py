from __future__ import annotations

from tests.providers.openai.audio.test_audio_files import read
from tornado_proxy.providers.openai.audio.flac_frames import read_header


def test_flac_header_with_a_wrong_checksum_is_none() -> None:
    audio = read("flac.flac")
    at = audio.index(b"\xff\xf8", 42)
    header = audio[at : at + 16]

    frame = read_header(header)

    assert frame is not None
    assert frame.samples == 4096
    assert read_header(header[:4] + bytes([header[4] ^ 1]) + header[5:]) is None
