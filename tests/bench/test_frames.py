"""The frames that the mock provider and the load generator exchange."""

from __future__ import annotations

import pytest

from bench import frames


def test_a_masked_frame_of_the_rfc_is_read() -> None:
    # RFC 6455 section 5.7, "Hello" from a client.
    assert frames.read_frame(bytes.fromhex("818537fa213d7f9f4d5158")) == (1, b"Hello", b"")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("masked", [False, True])
def test_a_text_frame_of_any_size_reads_back_and_leaves_what_follows(size: int, masked: bool) -> None:
    assert frames.read_frame(frames.text_frame(b"x" * size, masked=masked) + b"next") == (1, b"x" * size, b"next")


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_a_frame_that_is_cut_off_waits_for_the_rest(size: int) -> None:
    whole = frames.text_frame(b"x" * size, masked=True)
    assert all(frames.read_frame(whole[:at]) is None for at in range(min(20, len(whole))))
    assert frames.read_frame(whole[:-1]) is None


def test_the_handshake_of_the_rfc_is_answered() -> None:
    # RFC 6455 section 1.3.
    request = b"GET /chat HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in frames.handshake_answer(request)
