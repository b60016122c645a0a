"""Lengths of real files of each codec, as written, and with forged statements."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness import ROOT
from tornado_proxy.providers.openai.audio.audio_length import measure_seconds
from tornado_proxy.providers.openai.audio.audio_packets import measure_aac, measure_ogg
from tornado_proxy.providers.openai.audio.flac_frames import measure_flac

FILES = ROOT / "tests" / "fixtures" / "audio"


def read(name: str) -> bytes:
    return Path(FILES / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        pytest.param("vorbis.ogg", 4, id="Ogg Vorbis of 3.5 s"),
        pytest.param("flac.flac", 4, id="FLAC of 3.5 s"),
        pytest.param("flac.ogg", 1, id="Ogg FLAC of 1 s"),
        pytest.param("aac.m4a", 3, id="AAC of 3 s"),
        pytest.param("fragmented_aac.mp4", 4, id="fragmented AAC of 48 packets, 3.072 s"),
        pytest.param("opus.webm", None, id="WebM"),
    ],
)
def test_real_file_has_its_length(name: str, seconds: int | None) -> None:
    assert measure_seconds(memoryview(read(name))) == seconds


def state_samples(flac: bytes, samples: int) -> bytes:
    """Return a FLAC file whose STREAMINFO states another number of samples (36 bits, RFC 9639 section 8.2)."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | samples
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


def state_rate(flac: bytes, rate: int) -> bytes:
    packed = int.from_bytes(flac[18:26], "big")
    return flac[:18] + (packed & (1 << 44) - 1 | rate << 44).to_bytes(8, "big") + flac[26:]


def state_granules(ogg: bytes, granule: int) -> bytes:
    """Return an Ogg file whose pages all state the same position (RFC 3533, section 6)."""
    return re.sub(rb"(OggS..).{8}", lambda page: page[1] + struct.pack("<q", granule), ogg, flags=re.DOTALL)


def state_times(mp4: bytes) -> bytes:
    """Return an MP4 file whose movie, track and media have a time scale of 4 GHz: they state no time at all."""
    for box in (b"mvhd", b"mdhd"):
        at = mp4.index(box)
        mp4 = mp4[: at + 16] + b"\xff\xff\xff\xff" + mp4[at + 20 :]
    return mp4


def pack_rate(rate: int) -> bytes:
    """Return the sample size, two empty fields and the rate of an AudioSampleEntry (ISO/IEC 14496-12)."""
    return struct.pack(">HII", 16, 0, rate << 16)


@pytest.mark.parametrize(
    ("name", "forge", "seconds"),
    [
        pytest.param("flac.flac", lambda audio: state_samples(audio, 16_000), 4, id="FLAC states 1 s"),
        pytest.param("flac.flac", lambda audio: state_samples(audio, 0), 4, id="FLAC states no length"),
        pytest.param("flac.flac", lambda audio: state_rate(audio, 96_000), 4, id="FLAC states another rate"),
        pytest.param("vorbis.ogg", lambda audio: state_granules(audio, 16_000), 4, id="Vorbis states 1 s"),
        pytest.param("vorbis.ogg", lambda audio: state_granules(audio, 1), 4, id="Vorbis states no length"),
        pytest.param("fragmented_aac.mp4", state_times, 4, id="fragmented MP4 states no length"),
        pytest.param("aac.m4a", lambda audio: audio.replace(b"mp4a", b"alac"), None, id="another codec in MP4"),
        pytest.param(
            "aac.m4a",
            lambda audio: state_times(audio.replace(pack_rate(16_000), pack_rate(48_000))),
            4,
            id="MP4 track states three times the rate of its decoder",
        ),
    ],
)
def test_forged_statement_does_not_shorten_a_real_file(
    name: str, forge: Callable[[bytes], bytes], seconds: int | None
) -> None:
    audio = read(name)
    forged = forge(audio)

    assert forged != audio
    assert measure_seconds(memoryview(forged)) == seconds


@given(
    st.binary(max_size=200), st.sampled_from(["vorbis.ogg", "flac.flac", "flac.ogg", "aac.m4a"]), st.integers(0, 3000)
)
def test_damaged_files_never_raise(data: bytes, name: str, at: int) -> None:
    audio = read(name)
    damaged = audio[:at] + data + audio[at + len(data) :]

    assert (measure_ogg(damaged) or 0) >= 0
    assert (measure_aac(damaged) or 0) >= 0
    assert measure_flac(damaged) >= 0
    seconds = measure_seconds(memoryview(damaged))
    assert seconds is None or seconds > 0
