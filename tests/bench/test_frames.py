"""WebSocket frames of the mock provider and the load generator."""

from __future__ import annotations

import pytest

from bench import frames


def test_masked_frame_of_the_rfc_is_read() -> None:
    # RFC 6455 section 5.7, "Hello" from a client.
    assert frames.read_frame(bytes.fromhex("818537fa213d7f9f4d5158")) == (1, b"Hello", b"")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("masked", [False, True])
def test_text_frame_of_any_size_round_trips_and_leaves_the_next_bytes(size: int, masked: bool) -> None:
    assert frames.read_frame(frames.make_text_frame(b"x" * size, masked=masked) + b"next") == (1, b"x" * size, b"next")


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_incomplete_frame_is_not_read(size: int) -> None:
    frame = frames.make_text_frame(b"x" * size, masked=True)
    assert all(frames.read_frame(frame[:at]) is None for at in range(min(20, len(frame))))
    assert frames.read_frame(frame[:-1]) is None


def test_handshake_accepts_the_key_of_the_rfc() -> None:
    # RFC 6455 section 1.3.
    request = b"GET /chat HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in frames.make_handshake_response(request)
