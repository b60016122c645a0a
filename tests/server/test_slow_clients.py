"""Clients that send slowly, never completely or without waiting: bounded in time, in order, without harm to others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.server.raw_provider import (
    END,
    EVENT,
    SSE,
    USAGE,
    Act,
    ScriptedProvider,
    chat_request,
    chunk,
    connect,
    fetch_chat,
    read_request,
    scripted_provider,
)

#: Seconds, and bytes per second; the server waits for minutes.
SHORT_TIMEOUTS = {
    "tornado_proxy.http_server.server._SWEEP_INTERVAL_S": 0.1,
    "tornado_proxy.http_server.idle_connections._IDLE_TIMEOUT_S": 2.0,
    "tornado_proxy.http_server.idle_connections._HEAD_TIMEOUT_S": 2.0,
    "tornado_proxy.http_server.request_body._BODY_TIMEOUT_S": 1.0,
    "tornado_proxy.http_server.request_body._MIN_BODY_BYTES_PER_S": 3,
}

#: Clients that never complete their request.
_INCOMPLETE = 150


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    """A server with short timeouts, shared: no test here changes it."""
    folder = tmp_path_factory.mktemp("slow")
    with scripted_provider(folder, constants=SHORT_TIMEOUTS) as running:
        yield running


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(SSE.replace(b"Connection: close\r\n", b"") + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()


def run(provider: ScriptedProvider, act: Act) -> Any:
    return provider.run(serve, act)


async def exchange(proxy: ProxyProcess, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send `parts` with pauses between them; return all bytes received until the connection closes."""
    reader, writer = await connect(proxy)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(), TIMEOUT_S)
    finally:
        writer.close()


def with_token(request: bytes, token: str) -> bytes:
    head, _, rest = request.partition(b"Bearer ")
    return head + b"Bearer " + token.encode() + rest[rest.index(b"\r\n") :]


async def records_of(proxy: ProxyProcess, user: str, count: int = 0) -> list[dict[str, Any]]:
    """Return the records of a participant; wait until there are `count`."""
    return [
        record
        for record in await asyncio.to_thread(proxy.read_records, count=count)
        if record["participant"].startswith(user)
    ]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        pytest.param(None, 408, "request_timeout", id="a valid token"),
        pytest.param("invalid", 401, "invalid_api_key", id="an invalid token"),
    ],
)
def test_stalled_body_is_rejected_with_an_error_body(
    token: str | None, status: int, code: str, provider: ScriptedProvider
) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        sent = chat_request(user="stalled")[:-10]
        received = await exchange(proxy, sent if token is None else with_token(sent, token))
        await asyncio.to_thread(proxy.wait_for_log, f'"code":"{code}"')
        return received, await records_of(proxy, "stalled")

    received, records = run(provider, act)

    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert records == []


def test_body_that_arrives_slowly_does_not_time_out(provider: ScriptedProvider) -> None:
    async def act(proxy: ProxyProcess) -> bytes:
        sent = chat_request()
        # 12 pauses of 0.15 s are 1.8 s in all: 6.7 bytes a second, where 3 are needed over any second.
        last_bytes = (sent[at : at + 1] for at in range(len(sent) - 12, len(sent)))
        return await exchange(proxy, sent[:-12], *last_bytes, pause_s=0.15)

    assert b"data: [DONE]" in run(provider, act)


def test_body_that_trickles_times_out(provider: ScriptedProvider) -> None:
    async def act(proxy: ProxyProcess) -> bytes:
        sent = chat_request()
        reader, writer = await connect(proxy)
        writer.write(sent[:-30])
        received = asyncio.ensure_future(reader.read())
        for byte in sent[-30:]:
            await asyncio.wait({received}, timeout=0.6)  # fewer than 2 bytes a second
            if received.done():
                break
            writer.write(bytes([byte]))
        writer.close()
        return await asyncio.wait_for(received, TIMEOUT_S)

    assert run(provider, act).startswith(b"HTTP/1.1 408 ")


def test_head_that_never_ends_is_cut_off(provider: ScriptedProvider) -> None:
    async def act(proxy: ProxyProcess) -> bytes:
        reader, writer = await connect(proxy)
        received = asyncio.ensure_future(reader.read())
        for byte in chat_request():
            writer.write(bytes([byte]))
            await asyncio.wait({received}, timeout=0.05)
            if received.done():
                break
        writer.close()
        return await asyncio.wait_for(received, TIMEOUT_S)

    assert run(provider, act) == b""


def test_many_incomplete_requests_disturb_no_other_client(provider: ScriptedProvider) -> None:
    async def act(proxy: ProxyProcess) -> tuple[list[bytes], list[bytes], list[dict[str, Any]]]:
        before = len(await asyncio.to_thread(proxy.read_records))
        incomplete = [
            asyncio.ensure_future(exchange(proxy, chat_request(user="incomplete")[: -1 - number]))
            for number in range(_INCOMPLETE)
        ]
        served = [await fetch_chat(proxy) for _ in range(20)]
        rejected = await asyncio.gather(*incomplete)
        return served, rejected, (await asyncio.to_thread(proxy.read_records, count=before + 20))[before:]

    served, rejected, records = run(provider, act)

    assert all(b"data: [DONE]" in response for response in served)
    # A connection whose head is incomplete is closed without a response.
    assert {response[:13] for response in rejected} <= {b"HTTP/1.1 408 ", b""}
    assert len(records) == 20


def test_pipelined_requests_are_served_in_order_and_each_is_billed(provider: ScriptedProvider) -> None:
    users = ["pipelined-ada", "pipelined-bea", "pipelined-eve"]

    async def act(proxy: ProxyProcess) -> tuple[list[str], list[dict[str, Any]]]:
        before = len(await asyncio.to_thread(proxy.read_records))
        first, second, last = (chat_request(user=user, connection="keep-alive") for user in users)
        received = await exchange(proxy, first + second + last.replace(b"keep-alive", b"close"))
        ids = [
            line.rpartition(b" ")[2].decode()
            for line in received.split(b"\r\n")
            if line.startswith(b"Llm-Proxy-Request")
        ]
        return ids, await records_of(proxy, "pipelined", before + 3)

    ids, records = run(provider, act)

    participants = {record["request_id"]: record["participant"] for record in records}
    assert [participants[request_id] for request_id in ids] == users
    assert {record["outcome"] for record in records} == {"completed"}


def test_line_end_after_the_body_costs_no_byte_of_the_response(provider: ScriptedProvider) -> None:
    """Old clients send one.  A socket closed with unread bytes is reset, and data in transit is lost."""

    async def act(proxy: ProxyProcess) -> list[bytes]:
        return [await exchange(proxy, chat_request() + b"\r\n") for _ in range(20)]

    assert all(response.endswith((END, b"data: [DONE]\n\n")) for response in run(provider, act))
