"""SIGTERM in each phase of a call: what was taken before it comes to its end, and what cannot is ended in time."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from datetime import datetime, timedelta
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
    open_chat,
    read_request,
    run_against,
)

#: Seconds; what a machine that is busy may need on top of what a test waits for.
_SLACK_S = 10


class Holding:
    """A provider that says nothing until it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.asked.set()
        await self.go_on.wait()
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()


async def drain(proxy: ProxyProcess) -> None:
    proxy.signal(signal.SIGTERM)
    await asyncio.to_thread(proxy.wait_for_log, "draining")


def logged_at(proxy: ProxyProcess, message: str) -> datetime:
    return datetime.fromisoformat(json.loads(proxy.wait_for_log(f'"{message}"'))["time"])


async def ended(proxy: ProxyProcess) -> list[dict[str, Any]]:
    """The records after a clean end."""
    assert await asyncio.to_thread(proxy.wait_exit) == 0
    return await asyncio.to_thread(proxy.read_records)


def test_a_call_whose_provider_is_silent_is_waited_for(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        call = asyncio.ensure_future(fetch_chat(proxy))
        await asyncio.wait_for(held.asked.wait(), 20)
        await drain(proxy)
        held.go_on.set()
        return await call, await ended(proxy)

    held = Holding()
    seen, (record,) = run_against(held.serve, tmp_path, act)

    assert b"data: [DONE]\n\n" in seen
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_a_provider_that_stays_silent_past_the_drain_costs_the_call_and_not_its_record(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        call = asyncio.ensure_future(fetch_chat(proxy))
        await asyncio.wait_for(held.asked.wait(), 20)
        await drain(proxy)
        return await call, await ended(proxy)

    held = Holding()
    seen, (record,) = run_against(held.serve, tmp_path, act, shutdown={"drain_s": 0.3})

    assert seen == b""
    assert (record["outcome"], record["basis"], record["status"]) == ("shutdown", "unsettled", None)


def test_a_request_that_is_being_sent_is_waited_for(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        held.go_on.set()
        sent = chat_request(stream=True)
        reader, writer = await connect(proxy)
        writer.write(sent[:-10])
        await asyncio.sleep(0.3)  # nothing shows that a part of a request has been taken
        await drain(proxy)
        writer.write(sent[-10:])
        seen = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return seen, await ended(proxy)

    held = Holding()
    seen, (record,) = run_against(held.serve, tmp_path, act)

    assert b"data: [DONE]\n\n" in seen
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_a_request_that_never_comes_to_its_end_is_waited_for_no_longer_than_the_drain(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[float, bytes, list[dict[str, Any]]]:
        reader, writer = await connect(proxy)
        writer.write(chat_request(stream=True)[:-10])
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await drain(proxy)
        records = await ended(proxy)
        took_s = time.monotonic() - began
        writer.close()
        return took_s, await reader.read(), records

    took_s, seen, records = run_against(Holding().serve, tmp_path, act, shutdown={"drain_s": 1})

    assert 1 <= took_s < 1 + _SLACK_S
    assert (seen, records) == (b"", [])


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [pytest.param(0.5, 1, id="the drain is over"), pytest.param(600, 2, id="a second SIGTERM")],
)
def test_a_client_that_does_not_read_does_not_keep_the_process_from_ending(
    drain_s: float, signals: int, tmp_path: Path
) -> None:
    big = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 100_000)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE)
        while True:
            writer.write(chunk(big))
            await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[timedelta, list[dict[str, Any]]]:
        reader, writer = await open_chat(proxy)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way to stop reading
        await asyncio.sleep(1)  # all buffers on the way are full
        for _ in range(signals):
            await drain(proxy)
        records = await ended(proxy)
        writer.close()
        return logged_at(proxy, "stopped") - logged_at(proxy, "draining"), records

    took, (record,) = run_against(pour, tmp_path, act, shutdown={"drain_s": drain_s})

    assert took < timedelta(seconds=1.9)  # the two seconds that the last records get are not used up
    assert (record["outcome"], record["status"], record["basis"]) == ("shutdown", 200, "estimated")


def test_a_request_on_a_kept_connection_is_asked_to_come_again(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, bytes, list[dict[str, Any]]]:
        reader, writer = await connect(proxy)
        writer.write(b"GET /v1/nothing HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"}}"), 20)
        call = asyncio.ensure_future(fetch_chat(proxy))
        await asyncio.wait_for(held.asked.wait(), 20)
        await drain(proxy)
        writer.write(chat_request(stream=True))
        refused = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        held.go_on.set()
        return refused, await call, await ended(proxy)

    held = Holding()
    refused, seen, records = run_against(held.serve, tmp_path, act)

    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert json.loads(body)["error"]["code"] == "shutting_down"
    assert b"data: [DONE]\n\n" in seen
    assert len(records) == 1
