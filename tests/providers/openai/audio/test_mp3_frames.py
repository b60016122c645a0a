from __future__ import annotations

import pytest

from tornado_proxy.providers.openai.audio.mp3_frames import measure_mp3


@pytest.mark.parametrize(
    ("header", "frame_bytes", "samples", "rate"),
    [
        # Layer III of 128 kbit/s at 44.1 kHz: 144 x 128,000 / 44,100 bytes.
        pytest.param(b"\xff\xfb\x90\x00", 417, 1152, 44_100, id="MPEG 1, layer III"),
        pytest.param(b"\xff\xfb\x92\x00", 418, 1152, 44_100, id="padded"),
        pytest.param(b"\xff\xf3\xc4\x00", 384, 576, 24_000, id="MPEG 2, layer III"),
        pytest.param(b"\xff\xe3\x18\x00", 72, 576, 8000, id="MPEG 2.5, layer III, 8 kbit/s"),
        pytest.param(b"\xff\xfd\x80\x00", 417, 1152, 44_100, id="MPEG 1, layer II"),
    ],
)
def test_frames_are_counted_by_their_headers(header: bytes, frame_bytes: int, samples: int, rate: int) -> None:
    audio = (header + bytes(frame_bytes - 4)) * 100

    assert measure_mp3(audio) == pytest.approx(100 * samples / rate)


@pytest.mark.parametrize("audio", [b"", b"\xff", b"\xff\xff" * 1000, b"text" * 1000])
def test_bytes_without_frames_have_no_length(audio: bytes) -> None:
    assert measure_mp3(audio) is None
