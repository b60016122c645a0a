"""A chunk never waits for a later one: what the provider has sent reaches the client while the provider is silent."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import pytest

from tests.harness import ProxyProcess, running_proxy
from tests.server.raw_provider import EVENT, USAGE, chunk, open_chat, read_request, run_against
from tests.upstream.authority import write_ca_file
from tests.upstream.http2_provider import Stream, run_http2_provider

#: Seconds; far above what anything here takes.
_TIMEOUT_S = 20

_GZIP = zlib.compressobj(wbits=31)
_CODED = [_GZIP.compress(EVENT) + _GZIP.flush(zlib.Z_SYNC_FLUSH), _GZIP.compress(USAGE) + _GZIP.flush()]

_JSON = [b'{"id":"c1","model":"gpt-4o-mini",', b'"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}']


def head(media_type: str, framing: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n{framing}\r\n\r\n".encode()


def with_length(media_type: str, pieces: list[bytes], framing: str = "") -> list[bytes]:
    first, *rest = pieces
    return [head(media_type, f"{framing}Content-Length: {sum(map(len, pieces))}") + first, *rest]


def in_chunks(media_type: str, pieces: list[bytes], framing: str = "") -> list[bytes]:
    first, last = pieces
    return [head(media_type, f"{framing}Transfer-Encoding: chunked") + chunk(first), chunk(last) + b"0\r\n\r\n"]


async def seen_before_the_rest(proxy: ProxyProcess, first: bytes, go_on: asyncio.Event) -> bytes:
    """The whole answer; fails when `first` does not come before the provider is let go on."""
    reader, writer = await open_chat(proxy)
    try:
        seen = b""
        async with asyncio.timeout(_TIMEOUT_S):
            while first not in seen:
                part = await reader.read(65536)
                assert part, seen
                seen += part
            go_on.set()
            return seen + await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("says", "first"),
    [
        pytest.param(with_length("application/json", _JSON), _JSON[0], id="json with a length"),
        pytest.param(in_chunks("application/json", _JSON), _JSON[0], id="json in chunks"),
        pytest.param(in_chunks("text/event-stream", [EVENT, USAGE]), EVENT, id="events in chunks"),
        pytest.param(
            [head("text/event-stream", "Connection: close") + EVENT, USAGE],
            EVENT,
            id="events to the end of a connection",
        ),
        pytest.param(
            in_chunks("text/event-stream", _CODED, "Content-Encoding: gzip\r\n"), _CODED[0], id="compressed events"
        ),
        pytest.param(
            with_length("application/json", _CODED, "Content-Encoding: gzip\r\n"),
            _CODED[0],
            id="compressed with a length",
        ),
    ],
)
def test_what_has_come_is_passed_on_while_the_provider_is_silent(
    says: list[bytes], first: bytes, tmp_path: Path
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in says:
            writer.write(piece)
            await writer.drain()
            await asyncio.wait_for(go_on.wait(), _TIMEOUT_S)

    async def act(proxy: ProxyProcess) -> bytes:
        return await seen_before_the_rest(proxy, first, go_on)

    go_on = asyncio.Event()

    assert first in run_against(serve, tmp_path, act)
    assert go_on.is_set()


@pytest.mark.parametrize("length", [pytest.param(True, id="with a length"), pytest.param(False, id="without a length")])
def test_what_has_come_over_http2_is_passed_on_while_the_provider_is_silent(length: bool, tmp_path: Path) -> None:
    async def respond(stream: Stream) -> None:
        size = [("content-length", str(len(EVENT + USAGE)))] if length else []
        await stream.send_head(200, ("content-type", "text/event-stream"), *size)
        await stream.send(EVENT)
        await asyncio.wait_for(go_on.wait(), _TIMEOUT_S)
        await stream.send(USAGE)
        stream.end()

    async def run() -> bytes:
        async with run_http2_provider(respond) as provider:
            trusted = {
                "base_url": provider.url,
                "api_key": {"env": "TEST_OPENAI_KEY"},
                "ca_file": write_ca_file(tmp_path),
            }
            proxy = running_proxy(tmp_path, provider.url, providers={"openai": trusted})
            running = await asyncio.to_thread(proxy.__enter__)
            try:
                return await seen_before_the_rest(running, EVENT, go_on)
            finally:
                await asyncio.to_thread(proxy.__exit__, None, None, None)

    go_on = asyncio.Event()

    assert b"data: [DONE]" in asyncio.run(run())
