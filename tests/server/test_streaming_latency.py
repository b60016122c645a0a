"""A chunk never waits for a later one: it reaches the client while the provider is silent."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, running_proxy
from tests.server.raw_provider import (
    EVENT,
    USAGE,
    ScriptedProvider,
    chunk,
    open_chat,
    read_request,
    scripted_provider,
)
from tests.upstream.authority import write_ca_file
from tests.upstream.http2_provider import Stream, run_http2_provider

_GZIP = zlib.compressobj(wbits=31)
_COMPRESSED = [_GZIP.compress(EVENT) + _GZIP.flush(zlib.Z_SYNC_FLUSH), _GZIP.compress(USAGE) + _GZIP.flush()]

_JSON = [b'{"id":"c1","model":"gpt-4o-mini",', b'"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}']


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("latency")) as running:
        yield running


def head(media_type: str, framing: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n{framing}\r\n\r\n".encode()


def with_length(media_type: str, parts: list[bytes], framing: str = "") -> list[bytes]:
    first, *rest = parts
    return [head(media_type, f"{framing}Content-Length: {sum(map(len, parts))}") + first, *rest]


def in_chunks(media_type: str, parts: list[bytes], framing: str = "") -> list[bytes]:
    first, last = parts
    return [head(media_type, f"{framing}Transfer-Encoding: chunked") + chunk(first), chunk(last) + b"0\r\n\r\n"]


async def fetch_before_rest(proxy: ProxyProcess, first: bytes, send_rest: asyncio.Event) -> bytes:
    """Return the response; fail unless `first` arrives before the provider sends the rest."""
    reader, writer = await open_chat(proxy)
    try:
        received = b""
        async with asyncio.timeout(TIMEOUT_S):
            while first not in received:
                data = await reader.read(65536)
                assert data, received
                received += data
            send_rest.set()
            return received + await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        pytest.param(with_length("application/json", _JSON), _JSON[0], id="json with a length"),
        pytest.param(in_chunks("application/json", _JSON), _JSON[0], id="json in chunks"),
        pytest.param(in_chunks("text/event-stream", [EVENT, USAGE]), EVENT, id="events in chunks"),
        pytest.param(
            [head("text/event-stream", "Connection: close") + EVENT, USAGE],
            EVENT,
            id="events up to the end of the connection",
        ),
        pytest.param(
            in_chunks("text/event-stream", _COMPRESSED, "Content-Encoding: gzip\r\n"),
            _COMPRESSED[0],
            id="compressed events",
        ),
        pytest.param(
            with_length("application/json", _COMPRESSED, "Content-Encoding: gzip\r\n"),
            _COMPRESSED[0],
            id="compressed with a length",
        ),
    ],
)
def test_received_bytes_are_relayed_while_the_provider_is_silent(
    parts: list[bytes], first: bytes, provider: ScriptedProvider
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.wait_for(send_rest.wait(), TIMEOUT_S)

    async def act(proxy: ProxyProcess) -> bytes:
        return await fetch_before_rest(proxy, first, send_rest)

    send_rest = asyncio.Event()

    assert first in provider.run(serve, act)
    assert send_rest.is_set()


@pytest.mark.parametrize("length", [pytest.param(True, id="with a length"), pytest.param(False, id="without a length")])
def test_bytes_received_over_http2_are_relayed_while_the_provider_is_silent(length: bool, tmp_path: Path) -> None:
    async def respond(stream: Stream) -> None:
        size = [("content-length", str(len(EVENT + USAGE)))] if length else []
        await stream.send_head(200, ("content-type", "text/event-stream"), *size)
        await stream.send(EVENT)
        await asyncio.wait_for(send_rest.wait(), TIMEOUT_S)
        await stream.send(USAGE)
        stream.end()

    async def run() -> bytes:
        async with run_http2_provider(respond) as provider:
            trusted = {
                "base_url": provider.url,
                "api_key": {"env": "TEST_OPENAI_KEY"},
                "ca_file": write_ca_file(tmp_path),
            }
            context = running_proxy(tmp_path, provider.url, providers={"openai": trusted})
            proxy = await asyncio.to_thread(context.__enter__)
            try:
                return await fetch_before_rest(proxy, EVENT, send_rest)
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)

    send_rest = asyncio.Event()

    assert b"data: [DONE]" in asyncio.run(run())
