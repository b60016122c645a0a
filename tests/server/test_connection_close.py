"""Answers at the end of their connection: one that is recorded as whole arrives whole, a broken one looks broken."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ProxyProcess
from tests.server.raw_provider import END, EVENT, SSE, USAGE, chat_request, chunk, read_request, run_against

#: More than a client's window here takes, and less than the kernel takes from the server.
_MANY = 15_000

Seen = tuple[bytes, str]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT * _MANY) + chunk(USAGE) + END)
    await writer.drain()


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await writer.drain()


def old(connection: str) -> bytes:
    """A request as reverse proxies send it that have not been told to speak HTTP/1.1."""
    return chat_request(connection=connection).replace(b"HTTP/1.1", b"HTTP/1.0")


def slow_client(proxy: ProxyProcess, *sent: bytes) -> Seen:
    """What a client gets that sends all of `sent` bit by bit before it reads, and how its connection ends."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(20)
        client.connect(("127.0.0.1", int(proxy.base_url.rpartition(":")[2])))
        for one in sent:
            client.sendall(one)
            time.sleep(0.3)
        seen = b""
        try:
            while part := client.recv(65536):
                seen += part
        except ConnectionResetError:
            return seen, "reset"
        return seen, "closed"


def seen_by(folder: Path, provider: Any, *sent: bytes) -> tuple[Seen, list[dict[str, Any]]]:
    """What a slow client sees, and the records."""

    async def act(proxy: ProxyProcess) -> tuple[Seen, list[dict[str, Any]]]:
        seen = await asyncio.to_thread(slow_client, proxy, *sent)
        await asyncio.to_thread(proxy.wait_for_log, '"message":"request"')
        return seen, await asyncio.to_thread(proxy.read_records, count=1)

    found: tuple[Seen, list[dict[str, Any]]] = run_against(provider, folder, act)
    return found


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"\r\n"], id="a line end"),
        pytest.param([chat_request(), chat_request()], id="requests that nobody will answer"),
    ],
)
def test_what_a_client_sends_behind_its_last_request_costs_no_byte_of_the_answer(
    more: list[bytes], tmp_path: Path
) -> None:
    (seen, end), records = seen_by(tmp_path, serve, chat_request(), *more)

    assert seen.count(b"word ") == _MANY
    assert seen.endswith(END)
    assert end == "closed"
    assert [record["outcome"] for record in records] == ["completed"]


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_an_answer_without_a_length_ends_with_its_connection_in_http_1_0(connection: str, tmp_path: Path) -> None:
    (seen, end), records = seen_by(tmp_path, serve, old(connection))

    head, _, body = seen.partition(b"\r\n\r\n")
    assert b"keep-alive" not in head.lower()
    assert body.count(b"word ") == _MANY
    assert body.endswith(b"data: [DONE]\n\n")
    assert end == "closed"
    assert [record["outcome"] for record in records] == ["completed"]


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_cut_answer_without_a_length_does_not_look_complete_in_http_1_0(connection: str, tmp_path: Path) -> None:
    (_, end), records = seen_by(tmp_path, cut, old(connection))

    assert end == "reset"
    assert [record["outcome"] for record in records] == ["upstream_broken"]
