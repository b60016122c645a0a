"""Providers that break the protocol, clients that disconnect or do not read: the response, and one record each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, wait_until
from tests.server.raw_provider import (
    END,
    EVENT,
    SSE,
    USAGE,
    ScriptedProvider,
    chunk,
    continue_reading,
    fetch_chat,
    is_complete,
    open_chat,
    read_request,
    request_id_of,
    run_against,
    scripted_provider,
    stop_reading,
    wait_for_metric,
)
from tests.stress.process_stats import resident_kib


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "status", "outcome"),
    [
        pytest.param(b"", 502, "upstream_error", id="closes without a response"),
        pytest.param(b"no HTTP at all\r\n\r\n", 502, "upstream_error", id="garbage"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", 502, "upstream_error", id="a status that is no number"),
        pytest.param(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}", 502, "upstream_error", id="status 2000"),
        pytest.param(b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\n{}", 502, "upstream_error", id="status 600"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b'{"a":1}') + END,
            502,
            "upstream_error",
            id="a length and chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}',
            502,
            "upstream_error",
            id="two lengths",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 2_000_000 + b"\r\n\r\n",
            502,
            "upstream_error",
            id="2 MB of headers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{}",
            200,
            "upstream_broken",
            id="a body shorter than its length",
        ),
        pytest.param(SSE + chunk(EVENT), 200, "upstream_broken", id="a stream without its last chunk"),
        pytest.param(SSE + chunk(EVENT) + b"zz\r\nno chunk\r\n", 200, "upstream_broken", id="a chunk without a size"),
        pytest.param(
            b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n",
            502,
            "upstream_error",
            id="a redirect to another host, which is not followed",
        ),
    ],
)
def test_broken_provider_response_never_looks_complete_and_leaves_one_record(
    sent: bytes, status: int, outcome: str, provider: ScriptedProvider
) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()

    log_lines: list[str] = []

    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        logged = len(proxy.log)
        before = await asyncio.to_thread(proxy.read_records)
        received = await fetch_chat(proxy, stream=sent.startswith(SSE))
        await asyncio.to_thread(proxy.read_record, request_id_of(received))
        log_lines.extend(proxy.log[logged:])
        return received, (await asyncio.to_thread(proxy.read_records))[len(before) :]

    received, (record,) = provider.run(respond, act)

    assert not [line for line in log_lines if "Traceback" in line or '"exception"' in line]
    assert record["request_id"] == request_id_of(received)
    assert received.startswith(b"HTTP/1.1 %d" % status)
    assert record["outcome"] == outcome
    assert not received.endswith(END) or status != 200
    if status == 502:
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"].startswith("upstream_")


def count_completed(records: list[dict[str, Any]]) -> int:
    return [record["outcome"] for record in records].count("completed")


def test_clients_that_disconnect_in_every_phase_leave_nothing_open_and_disturb_no_other(tmp_path: Path) -> None:
    open_connections = 0

    async def respond_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        open_connections += 1
        try:
            while True:
                await read_request(reader)
                await asyncio.sleep(0.05)  # some clients disconnect before the head
                writer.write(SSE)
                for _ in range(10):
                    writer.write(chunk(EVENT))
                    await writer.drain()
                    await asyncio.sleep(0.01)
                writer.write(chunk(USAGE) + END)
                await writer.drain()
        finally:
            open_connections -= 1

    async def disconnect(proxy: ProxyProcess, after_s: float) -> None:
        _, writer = await open_chat(proxy)
        await asyncio.sleep(after_s)
        writer.transport.abort()

    async def act(proxy: ProxyProcess) -> tuple[list[bytes | None], list[dict[str, Any]]]:
        # A stream takes some 0.15 s: the times cover all of it, and the time after its end.
        disconnecting = [disconnect(proxy, number % 30 * 0.01) for number in range(150)]
        staying = [fetch_chat(proxy) for _ in range(50)]
        responses = (await asyncio.gather(*staying, *disconnecting))[: len(staying)]
        await wait_for_metric(proxy, "llm_proxy_requests_in_flight 0.0")
        # The records of all 200 may still wait for a commit, and those of the clients that stay are not the first.
        await asyncio.to_thread(wait_until, lambda: count_completed(proxy.read_records()) >= 50, "50 records")
        return responses, await asyncio.to_thread(proxy.read_records)

    responses, records = run_against(respond_slowly, tmp_path, act, streams={"on_client_disconnect": "cancel"})

    assert [response.count(b"word ") for response in responses] == [10] * 50
    assert all(is_complete(response) for response in responses)
    assert count_completed(records) >= 50
    assert len(records) <= 200  # a request of a client that disconnects before it is read is never sent
    assert open_connections == 0


def test_clients_that_do_not_read_block_only_their_own_streams(provider: ScriptedProvider) -> None:
    """Four streams of 20 MB each wait for their clients; a fifth is served meanwhile."""
    events = 200
    event = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 100_000)

    async def send_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE)
        for _ in range(events):
            writer.write(chunk(event))
            await writer.drain()
        writer.write(chunk(USAGE) + END)
        await writer.drain()

    async def act(proxy: ProxyProcess) -> tuple[int, list[int]]:
        await fetch_chat(proxy)
        before = resident_kib(proxy)
        stalled = [await open_chat(proxy) for _ in range(4)]
        for reader, _ in stalled:
            stop_reading(reader)
        assert len(await fetch_chat(proxy)) > events * len(event)
        growth = resident_kib(proxy) - before
        sizes = []
        for reader, writer in stalled:
            continue_reading(reader)
            sizes.append(len(await asyncio.wait_for(reader.read(), TIMEOUT_S)))
            writer.close()
        return growth, sizes

    growth, sizes = provider.run(send_much, act)

    assert min(sizes) > events * len(event)
    # At most 256 KiB is buffered for each client; chunks in transit and the allocator's reserve come on top.
    assert growth < 8 * 1024
