"""The last response of a connection: one recorded as complete arrives completely, a broken one looks broken."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess
from tests.server.raw_provider import (
    END,
    EVENT,
    SSE,
    USAGE,
    ScriptedProvider,
    Serve,
    chat_request,
    chunk,
    read_request,
    scripted_provider,
)

#: More bytes than the receive window of a client here, fewer than the kernel buffers for the server.
_EVENTS = 15_000

#: Seconds between two sends of the client: long enough that the server receives them apart.
_PAUSE_S = 0.3

#: All bytes received, and how the connection ended: "closed" or "reset".
Received = tuple[bytes, str]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("close")) as running:
        yield running


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT * _EVENTS) + chunk(USAGE) + END)
    await writer.drain()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await writer.drain()


def http_1_0_request(connection: str) -> bytes:
    """Return a request as a reverse proxy sends it that is not configured for HTTP/1.1."""
    return chat_request(connection=connection).replace(b"HTTP/1.1", b"HTTP/1.0")


def exchange_slowly(proxy: ProxyProcess, *parts: bytes) -> Received:
    """Send all `parts`, with a pause after each, before reading anything."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", int(proxy.base_url.rpartition(":")[2])))
        for part in parts:
            client.sendall(part)
            time.sleep(_PAUSE_S)
        received = b""
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError:
            return received, "reset"
        return received, "closed"


def receive(provider: ScriptedProvider, serve: Serve, *parts: bytes) -> tuple[Received, list[dict[str, Any]]]:
    """Return the bytes that a slow client receives, and the new records."""

    async def act(proxy: ProxyProcess) -> tuple[Received, list[dict[str, Any]]]:
        before = len(await asyncio.to_thread(proxy.read_records))
        received = await asyncio.to_thread(exchange_slowly, proxy, *parts)
        await asyncio.to_thread(proxy.wait_for_log, '"message":"request"', count=before + 1)
        return received, (await asyncio.to_thread(proxy.read_records, count=before + 1))[before:]

    found: tuple[Received, list[dict[str, Any]]] = provider.run(serve, act)
    return found


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"\r\n"], id="a line end"),
        pytest.param([chat_request(), chat_request()], id="requests that are never served"),
    ],
)
def test_bytes_after_the_last_request_cost_no_byte_of_the_response(
    more: list[bytes], provider: ScriptedProvider
) -> None:
    (received, end), records = receive(provider, respond, chat_request(), *more)

    assert received.count(b"word ") == _EVENTS
    assert received.endswith(END)
    assert end == "closed"
    assert [record["outcome"] for record in records] == ["completed"]


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_http_1_0_response_without_a_length_ends_with_its_connection(
    connection: str, provider: ScriptedProvider
) -> None:
    (received, end), records = receive(provider, respond, http_1_0_request(connection))

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"keep-alive" not in head.lower()
    assert body.count(b"word ") == _EVENTS
    assert body.endswith(b"data: [DONE]\n\n")
    assert end == "closed"
    assert [record["outcome"] for record in records] == ["completed"]


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_broken_http_1_0_response_without_a_length_does_not_look_complete(
    connection: str, provider: ScriptedProvider
) -> None:
    (_, end), records = receive(provider, break_off, http_1_0_request(connection))

    assert end == "reset"
    assert [record["outcome"] for record in records] == ["upstream_broken"]
