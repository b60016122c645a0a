"""Providers that lie, clients that leave or do not read: what the client sees, and that each call is one record."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ProxyProcess
from tests.server.raw_provider import (
    END,
    EVENT,
    SSE,
    USAGE,
    chunk,
    fetch_chat,
    is_complete,
    open_chat,
    read_request,
    run_against,
)


@pytest.mark.parametrize(
    ("said", "status", "outcome"),
    [
        pytest.param(b"", 502, "upstream_error", id="closes without a word"),
        pytest.param(b"no HTTP at all\r\n\r\n", 502, "upstream_error", id="garbage"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", 502, "upstream_error", id="a status that is no number"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 2_000_000 + b"\r\n\r\n",
            502,
            "upstream_error",
            id="2 MB of head",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{}",
            200,
            "upstream_broken",
            id="less than it promised",
        ),
        pytest.param(SSE + chunk(EVENT), 200, "upstream_broken", id="a stream without its end"),
        pytest.param(SSE + chunk(EVENT) + b"zz\r\nno chunk\r\n", 200, "upstream_broken", id="a chunk of no length"),
        pytest.param(
            b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n",
            307,
            "completed",
            id="a redirect, which is not followed",
        ),
    ],
)
def test_a_lying_provider_never_looks_like_a_whole_answer_and_leaves_one_record(
    said: bytes, status: int, outcome: str, tmp_path: Path
) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        seen = await fetch_chat(proxy, stream=said.startswith(SSE))
        return seen, await asyncio.to_thread(proxy.read_records, count=1)

    seen, (record,) = run_against(lie, tmp_path, act)

    assert seen.startswith(b"HTTP/1.1 %d" % status)
    assert record["outcome"] == outcome
    assert not seen.endswith(END) or status != 200
    if status == 502:
        assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"].startswith("upstream_")


def test_clients_that_leave_in_every_phase_leave_nothing_behind_and_harm_nobody(tmp_path: Path) -> None:
    under_way = 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        under_way += 1
        try:
            while True:
                await read_request(reader)
                await asyncio.sleep(0.05)
                writer.write(SSE)
                for _ in range(10):
                    writer.write(chunk(EVENT))
                    await writer.drain()
                    await asyncio.sleep(0.01)
                writer.write(chunk(USAGE) + END)
                await writer.drain()
        finally:
            under_way -= 1

    async def leave(proxy: ProxyProcess, after_s: float) -> None:
        _, writer = await open_chat(proxy)
        await asyncio.sleep(after_s)
        writer.transport.abort()

    async def act(proxy: ProxyProcess) -> tuple[list[bytes], list[dict[str, Any]]]:
        leaving = [leave(proxy, number % 30 * 0.01) for number in range(150)]
        staying = [fetch_chat(proxy) for _ in range(50)]
        whole = (await asyncio.gather(*staying, *leaving))[: len(staying)]
        async with asyncio.timeout(30):
            while "llm_proxy_requests_in_flight 0.0" not in (await asyncio.to_thread(proxy.fetch_admin, "/metrics"))[1]:
                pass
        return whole, await asyncio.to_thread(proxy.read_records, count=50)

    whole, records = run_against(slowly, tmp_path, act, streams={"on_client_disconnect": "cancel"})

    assert [one.count(b"word ") for one in whole] == [10] * 50
    assert all(is_complete(one) for one in whole)
    assert [record["outcome"] for record in records].count("completed") >= 50
    assert len(records) <= 200  # one that left before its request was read was never sent
    assert under_way == 0


def test_clients_that_do_not_read_hold_their_own_streams_only(tmp_path: Path) -> None:
    """Four streams of 20 MB each wait for their clients; a fifth is served meanwhile."""
    events = 200
    big = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 100_000)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE)
        for _ in range(events):
            writer.write(chunk(big))
            await writer.drain()
        writer.write(chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[int, list[int]]:
        await fetch_chat(proxy)
        before = resident_kib(proxy)
        stalled = [await open_chat(proxy) for _ in range(4)]
        for reader, _ in stalled:
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way to stop reading
        assert len(await fetch_chat(proxy)) > events * len(big)
        grown = resident_kib(proxy) - before
        sizes = []
        for reader, writer in stalled:
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            sizes.append(len(await asyncio.wait_for(reader.read(), 30)))
            writer.close()
        return grown, sizes

    grown, sizes = run_against(pour, tmp_path, act)

    assert min(sizes) > events * len(big)
    assert grown < 8 * 1024  # at most 256 KiB each is held; pieces on their way, and what the allocator keeps, are more


def resident_kib(proxy: ProxyProcess) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_second_sigterm_ends_at_once_and_loses_no_record(tmp_path: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()

    async def act(proxy: ProxyProcess) -> tuple[int, list[dict[str, Any]]]:
        reader, writer = await open_chat(proxy)
        await asyncio.wait_for(reader.readuntil(b"word "), 20)
        proxy.signal(signal.SIGTERM)
        await asyncio.to_thread(proxy.wait_for_log, "draining")
        proxy.signal(signal.SIGTERM)
        code = await asyncio.to_thread(proxy.wait_exit)
        writer.close()
        return code, await asyncio.to_thread(proxy.read_records, count=1)

    code, (record,) = run_against(endless, tmp_path, act, shutdown={"drain_s": 600})

    assert code == 0
    assert (record["outcome"], record["basis"]) == ("shutdown", "estimated")
