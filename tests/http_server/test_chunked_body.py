"""Chunked bodies as RFC 9112 section 7.1 allows them, in every cut of their bytes."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.httputil import HTTPInputError
from tornado.iostream import IOStream

from tornado_proxy.http_server.chunked_body import ChunkedBody


def read_body(sent: bytes, *, cut_bytes: int = 1 << 30, max_bytes: int = 1 << 30) -> bytes:
    """Return the body in `sent`, which arrives in pieces of `cut_bytes`."""

    async def run() -> bytes:
        ours, theirs = socket.socketpair()
        stream = IOStream(ours)
        pieces: list[bytes] = []

        async def deliver(data: bytes) -> None:
            pieces.append(data)

        body = ChunkedBody(stream, deliver, piece_bytes=8, max_bytes=max_bytes)
        reading = asyncio.ensure_future(body.read())
        with theirs:
            for at in range(0, len(sent), cut_bytes):
                theirs.sendall(sent[at : at + cut_bytes])
                await asyncio.sleep(0.001)
            try:
                await asyncio.wait_for(reading, 20)
            finally:
                stream.close()
        return b"".join(pieces)

    return asyncio.run(run())


@pytest.mark.parametrize("cut_bytes", [pytest.param(1 << 30, id="whole"), pytest.param(1, id="byte by byte"), 5])
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="plain"),
        pytest.param(b"3;name=value\r\nabc\r\n0;last\r\n\r\n", b"abc", id="extensions"),
        pytest.param(b'3 ; a="q;\xc3"; b\r\nabc\r\n0\r\n\r\n', b"abc", id="quoted extension and white space"),
        pytest.param(b"1\r\na\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", b"a0123456789", id="trailers"),
        pytest.param(b"0003\r\nabc\r\n000\r\n\r\n", b"abc", id="leading zeros"),
        pytest.param(b"0\r\n\r\n", b"", id="empty"),
    ],
)
def test_body_is_read_without_extensions_and_trailers(sent: bytes, body: bytes, cut_bytes: int) -> None:
    assert read_body(sent, cut_bytes=cut_bytes) == body


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        pytest.param(b"x\r\n", "malformed chunk size", id="no size"),
        pytest.param(b"-3\r\nabc\r\n", "malformed chunk size", id="negative"),
        pytest.param(b"0x3\r\nabc\r\n", "malformed chunk size", id="0x"),
        pytest.param(b"3;a\nb\r\nabc\r\n", "malformed chunk size", id="bare line feed in an extension"),
        pytest.param(b"3\r\nabcd\r\n", "chunk longer than its size", id="too long"),
        pytest.param(b"0\r\nA: b\nC: d\r\n\r\n", "malformed trailer", id="bare line feed in a trailer"),
        pytest.param(b"5\r\nabcde\r\n6\r\nabcdef\r\n", "chunked body too large", id="over the limit"),
        pytest.param(
            b"0\r\n" + b"A: %s\r\n" % (b"b" * 8000) * 9,
            "chunk extensions and trailers too large",
            id="72 KB of trailers",
        ),
        pytest.param(
            b"1;%s\r\na\r\n" % (b"b" * 8000) * 9, "chunk extensions and trailers too large", id="72 KB of extensions"
        ),
    ],
)
def test_malformed_body_is_an_input_error(sent: bytes, fault: str) -> None:
    with pytest.raises(HTTPInputError, match=fault):
        read_body(sent, max_bytes=10)
