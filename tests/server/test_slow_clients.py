"""Clients that send slowly, never to the end, or all at once: bounded, answered in order, and no harm to others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ProxyProcess
from tests.server.raw_provider import (
    END,
    EVENT,
    SSE,
    USAGE,
    chat_request,
    chunk,
    connect,
    fetch_chat,
    read_request,
    run_against,
)

#: Seconds; far above what anything here takes.
_TIMEOUT_S = 20

#: Clients that never come to the end of their request.
_NEVER = 150

Act = Callable[[ProxyProcess], Awaitable[Any]]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(SSE.replace(b"Connection: close\r\n", b"") + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()


def run(act: Act, folder: Path) -> Any:
    return run_against(serve, folder, act, program="tests.server.short_timeouts")


async def all_of(proxy: ProxyProcess, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """What a client gets that sends `pieces` with pauses between, up to the end of the connection."""
    reader, writer = await connect(proxy)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        return await asyncio.wait_for(reader.read(), _TIMEOUT_S)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        pytest.param(None, 408, "request_timeout", id="a good token"),
        pytest.param("nobody", 401, "invalid_api_key", id="a bad token"),
    ],
)
def test_a_body_that_stops_coming_is_turned_away_with_words(
    token: str | None, status: int, code: str, tmp_path: Path
) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        sent = chat_request()[:-10]
        if token is not None:
            head, _, rest = sent.partition(b"Bearer ")
            sent = head + b"Bearer " + token.encode() + rest[rest.index(b"\r\n") :]
        seen = await all_of(proxy, sent)
        await asyncio.to_thread(proxy.wait_for_log, f'"code":"{code}"')
        return seen, await asyncio.to_thread(proxy.read_records)

    seen, records = run(act, tmp_path)

    assert seen.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert records == []


def test_a_body_that_comes_slowly_is_not_late(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> bytes:
        sent = chat_request()
        return await all_of(
            proxy, sent[:-12], *(sent[at : at + 1] for at in range(len(sent) - 12, len(sent))), pause_s=0.15
        )

    assert b"data: [DONE]" in run(act, tmp_path)


def test_a_head_that_never_ends_is_ended(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> bytes:
        reader, writer = await connect(proxy)
        seen = asyncio.ensure_future(reader.read())
        for byte in chat_request():
            writer.write(bytes([byte]))
            await asyncio.wait({seen}, timeout=0.05)
            if seen.done():
                break
        writer.close()
        return await asyncio.wait_for(seen, _TIMEOUT_S)

    assert run(act, tmp_path) == b""


def test_many_that_never_come_to_an_end_do_no_harm_to_others_and_leave_nothing(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[list[bytes], list[bytes], list[dict[str, Any]]]:
        never = [asyncio.ensure_future(all_of(proxy, chat_request()[: -1 - number])) for number in range(_NEVER)]
        served = [await fetch_chat(proxy) for _ in range(20)]
        return served, await asyncio.gather(*never), await asyncio.to_thread(proxy.read_records, count=20)

    served, ended, records = run(act, tmp_path)

    assert all(b"data: [DONE]" in one for one in served)
    assert {one[:13] for one in ended} <= {b"HTTP/1.1 408 ", b""}  # a head that is cut short is closed without words
    assert len(records) == 20


def test_requests_that_come_at_once_are_answered_in_their_order_and_each_is_billed(tmp_path: Path) -> None:
    users = ["ada", "bea", "eve"]

    async def act(proxy: ProxyProcess) -> tuple[list[str], list[dict[str, Any]]]:
        first, second, last = (chat_request(user=user, connection="keep-alive") for user in users)
        seen = await all_of(proxy, first + second + last.replace(b"keep-alive", b"close"))
        ids = [
            line.rpartition(b" ")[2].decode() for line in seen.split(b"\r\n") if line.startswith(b"Llm-Proxy-Request")
        ]
        return ids, await asyncio.to_thread(proxy.read_records, count=3)

    ids, records = run(act, tmp_path)

    participants = {record["request_id"]: record["participant"] for record in records}
    assert [participants[one] for one in ids] == users
    assert {record["outcome"] for record in records} == {"completed"}


def test_a_line_end_behind_the_body_costs_no_byte_of_the_answer(tmp_path: Path) -> None:
    """Old clients send one; a socket that is closed with unread bytes in it is reset, with what has not arrived yet."""

    async def act(proxy: ProxyProcess) -> list[bytes]:
        return [await all_of(proxy, chat_request() + b"\r\n") for _ in range(20)]

    assert all(one.endswith((END, b"data: [DONE]\n\n")) for one in run(act, tmp_path))
