"""Clients that read a whole response and close at once, and lists that are too large to be rewritten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.server.raw_provider import (
    ScriptedProvider,
    chat_request,
    connect,
    read_request,
    request_id_of,
    scripted_provider,
)
from tests.stress.process_stats import resident_kib

#: A response of 3 MB whose usage is stated.
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 600_000}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("delivered")) as scripted:
        yield scripted


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("pause_s", [0, 0.05], ids=["provider ends at once", "provider ends later"])
def test_response_that_the_client_has_read_whole_is_completed(
    provider: ScriptedProvider, connection: str, pause_s: float
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        writer.write(BODY[:-1])
        await writer.drain()
        await asyncio.sleep(pause_s)
        writer.write(BODY[-1:])
        await writer.drain()

    async def read_whole(proxy: ProxyProcess) -> str:
        reader, writer = await connect(proxy)
        writer.write(chat_request(stream=False, connection=connection))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        assert await asyncio.wait_for(reader.readexactly(len(BODY)), TIMEOUT_S) == BODY
        writer.close()
        return request_id_of(head)

    async def act(proxy: ProxyProcess) -> list[dict[str, Any]]:
        ids = [await read_whole(proxy) for _ in range(25)]
        return [await asyncio.to_thread(proxy.read_record, request_id) for request_id in ids]

    records = provider.run(serve, act)

    assert {(record["outcome"], record["status"], record["basis"]) for record in records} == {
        ("completed", 200, "reported")
    }


@pytest.mark.parametrize(
    "target", [pytest.param("/v1/models", id="models"), pytest.param("/anthropic/v1/messages/batches", id="batches")]
)
def test_list_that_is_too_large_to_be_cut_is_a_502_in_bounded_memory(target: str, provider: ScriptedProvider) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        await writer.drain()
        await asyncio.sleep(0.2)  # the head alone has arrived: it must not be relayed before the body is known
        for _ in range(200):
            writer.write(b" " * MIB)
            await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[bytes, int]:
        before_kib = resident_kib(proxy)
        reader, writer = await connect(proxy)
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {mint()}\r\n\r\n".encode()
        )
        response = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        writer.close()
        return response, resident_kib(proxy) - before_kib

    response, grown_kib = provider.run(serve, act)

    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"larger than 8 MiB" in body
    assert grown_kib < 40 * 1024
