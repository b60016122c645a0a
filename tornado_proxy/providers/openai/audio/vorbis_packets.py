"""Reads the length of Vorbis packets, because the length that an Ogg Vorbis file states can be forged.

A packet names its mode, the mode one of two block sizes.  Two blocks overlap by half: together they have a quarter of
the sum of their sizes in samples.  The modes are at the end of the setup header, behind tables of unknown length, so
they are read backwards.  libvorbis and FFmpeg write two modes, one of short and one of long blocks; with any others all
blocks count as long.

Source: Vorbis I specification, sections 4.2.2 (identification), 4.2.4 (modes), 4.3.1 (packet type, mode), 4.3.8.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

#: Bits of one mode, and of the number of modes.
_MODE_BITS, _COUNT_BITS = 41, 6
#: Bytes of the setup header that two modes and their number can take.
_MODES_BYTES = (2 * _MODE_BITS + _COUNT_BITS) // 8 + 2


@dataclass(frozen=True, slots=True)
class VorbisStream:
    """The headers of a stream: its sample rate and its two block sizes.

    `has_usual_modes` is False if the modes cannot be read: then every block counts as long.
    """

    rate: int
    short: int
    long: int
    has_usual_modes: bool


def read_headers(identification: bytes, setup: bytes) -> VorbisStream | None:
    """Return the stream that these two header packets describe, None if they are malformed."""
    if len(identification) < 30 or not setup.startswith(b"\x05vorbis"):
        return None
    rate = int.from_bytes(identification[12:16], "little")
    short, long = 1 << (identification[28] & 15), 1 << (identification[28] >> 4)
    return VorbisStream(rate, short, long, _has_usual_modes(setup)) if rate else None


def measure_vorbis(stream: VorbisStream, packets: Iterable[bytes]) -> float:
    """Return the seconds of audio packets, of which the first byte is enough."""
    sizes = [_block_size(stream, packet[0]) for packet in packets if packet and not packet[0] & 1]
    return sum(map(sum, itertools.pairwise(sizes))) / 4 / stream.rate


def _block_size(stream: VorbisStream, first: int) -> int:
    return stream.short if stream.has_usual_modes and not first & 2 else stream.long


def _has_usual_modes(setup: bytes) -> bool:
    """Return True if the setup header ends with two modes, the first of short and the second of long blocks.

    Each mode has a block flag, 16 bits of window and 16 of transform, which are zero, and a mapping below 64.
    """
    bits = int.from_bytes(setup[-_MODES_BYTES:], "little")
    # The last bit that is set is the framing bit; before it come the modes, and before these their number less one.
    end = bits.bit_length() - 1
    if end < 2 * _MODE_BITS + _COUNT_BITS:
        return False
    short, long = (_read_bits(bits, end - count * _MODE_BITS, _MODE_BITS) for count in (2, 1))
    count = _read_bits(bits, end - 2 * _MODE_BITS - _COUNT_BITS, _COUNT_BITS) + 1
    mappings = all(mode >> 33 < 64 and not mode >> 1 & (1 << 32) - 1 for mode in (short, long))
    return count == 2 and mappings and (short & 1, long & 1) == (0, 1)


def _read_bits(bits: int, at: int, length: int) -> int:
    return bits >> at & (1 << length) - 1
