"""The load generator's reader of chunked bodies: whole, byte by byte, and cut anywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.canned import chunk
from bench.load.chunks import Unchunker

EVENTS = [b'data: {"content":"0a1b"}\n\n', b"d", b"data: " + b"f" * 70_000 + b"\n\n", b"ab", b"data: [DONE]\n\n"]
BODY = b"".join(chunk(event) for event in EVENTS) + b"0\r\n\r\n"


def fed(pieces: list[bytes]) -> bytes:
    chunks = Unchunker()
    out = b"".join(chunks.feed(piece) for piece in pieces)
    assert chunks.ended
    return out


def test_a_whole_body_loses_its_framing_alone() -> None:
    assert fed([BODY]) == b"".join(EVENTS)


def test_a_body_byte_by_byte_reads_the_same() -> None:
    assert fed([BODY[at : at + 1] for at in range(len(BODY))]) == b"".join(EVENTS)


@given(st.lists(st.integers(0, 200), max_size=12), st.lists(st.integers(len(BODY) - 60, len(BODY)), max_size=8))
def test_a_body_cut_anywhere_reads_the_same(early: list[int], late: list[int]) -> None:
    cuts = [0, *sorted(early + late), len(BODY)]
    assert fed([BODY[a:b] for a, b in pairwise(cuts)]) == b"".join(EVENTS)


def test_a_body_that_breaks_off_never_ends() -> None:
    chunks = Unchunker()
    assert chunks.feed(BODY[:-1]) == b"".join(EVENTS)
    assert not chunks.ended
