"""The load generator's decoder of chunked bodies: at once, byte by byte, and split anywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.canned import encode_chunk
from bench.load.chunks import ChunkDecoder

EVENTS = [b'data: {"content":"0a1b"}\n\n', b"d", b"data: " + b"f" * 70_000 + b"\n\n", b"ab", b"data: [DONE]\n\n"]
BODY = b"".join(encode_chunk(event) for event in EVENTS) + b"0\r\n\r\n"


def decode(pieces: list[bytes]) -> bytes:
    decoder = ChunkDecoder()
    out = b"".join(decoder.feed(piece) for piece in pieces)
    assert decoder.ended
    return out


def test_decoding_removes_framing_alone() -> None:
    assert decode([BODY]) == b"".join(EVENTS)


def test_body_byte_by_byte_decodes_the_same() -> None:
    assert decode([BODY[at : at + 1] for at in range(len(BODY))]) == b"".join(EVENTS)


@given(st.lists(st.integers(0, 200), max_size=12), st.lists(st.integers(len(BODY) - 60, len(BODY)), max_size=8))
def test_body_split_anywhere_decodes_the_same(early: list[int], late: list[int]) -> None:
    cuts = [0, *sorted(early + late), len(BODY)]
    assert decode([BODY[a:b] for a, b in pairwise(cuts)]) == b"".join(EVENTS)


def test_incomplete_body_never_ends() -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(BODY[:-1]) == b"".join(EVENTS)
    assert not decoder.ended
