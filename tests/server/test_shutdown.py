"""SIGTERM in each phase of a request: accepted requests complete, and those that cannot are ended in time."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import PROJECT, TIMEOUT_S, ProxyProcess, running_proxy, wait_until
from tests.replay_provider import ProviderResponse, running_replay_provider
from tests.server.chat import CHAT, CHAT_RESPONSE, post_chat
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
    stop_reading,
)

#: Seconds; sends part of a request and lets the server receive it.  Nothing outside the process shows that it did.
_RECEIVE_S = 0.3

#: After the drain the last records get some seconds; with this many, a test sees whether the server uses them up.
_LAST_RECORDS_S = 60


class BlockedProvider:
    """A provider that sends nothing until `release` is set."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        self.release = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.received.set()
        await self.release.wait()
        writer.write(SSE + chunk(EVENT) + chunk(USAGE) + END)
        await writer.drain()

    async def wait_received(self) -> None:
        await asyncio.wait_for(self.received.wait(), TIMEOUT_S)


async def drain(proxy: ProxyProcess) -> None:
    proxy.signal(signal.SIGTERM)
    await asyncio.to_thread(proxy.wait_for_log, "draining")


def logged_at(proxy: ProxyProcess, message: str) -> datetime:
    return datetime.fromisoformat(json.loads(proxy.wait_for_log(f'"{message}"'))["time"])


async def stopped_records(proxy: ProxyProcess) -> list[dict[str, Any]]:
    """Wait for the exit with code 0; return the records."""
    assert await asyncio.to_thread(proxy.wait_exit) == 0
    return await asyncio.to_thread(proxy.read_records)


def test_sigterm_completes_requests_in_flight_and_rejects_new_connections(tmp_path: Path) -> None:
    with running_replay_provider() as provider, running_proxy(tmp_path, provider.url) as proxy:
        provider.response = ProviderResponse(chunks=(*(b" " for _ in range(600)), CHAT_RESPONSE))
        responses: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: responses.append(post_chat(proxy)))
        caller.start()
        wait_until(lambda: len(provider.requests) == 1, "a request at the provider")
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_log("draining")

        assert proxy.fetch_admin("/readyz")[0] == 503
        with pytest.raises(httpx.TransportError):
            httpx.post(proxy.base_url + "/v1/chat/completions", json=CHAT, timeout=5)
        caller.join(TIMEOUT_S)
        assert proxy.wait_exit() == 0
        assert responses[0].status_code == 200
        assert [record["outcome"] for record in proxy.read_records()] == ["completed"]


def test_response_that_outlasts_the_drain_is_cut_and_looks_broken(tmp_path: Path) -> None:
    with (
        running_replay_provider() as provider,
        running_proxy(tmp_path, provider.url, shutdown={"drain_s": 0.2}) as proxy,
    ):
        provider.response = ProviderResponse(chunks=tuple(b" " for _ in range(5000)))
        errors: list[BaseException] = []

        def call() -> None:
            try:
                post_chat(proxy)
            except httpx.TransportError as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        wait_until(lambda: len(provider.requests) == 1, "a request at the provider")
        proxy.signal(signal.SIGTERM)
        caller.join(TIMEOUT_S)

        assert proxy.wait_exit() == 0
        assert len(errors) == 1
        assert [record["outcome"] for record in proxy.read_records()] == ["shutdown"]


def test_drain_waits_for_a_silent_provider(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        request = asyncio.ensure_future(fetch_chat(proxy))
        await provider.wait_received()
        await drain(proxy)
        provider.release.set()
        return await request, await stopped_records(proxy)

    provider = BlockedProvider()
    received, (record,) = run_against(provider.serve, tmp_path, act)

    assert b"data: [DONE]\n\n" in received
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_provider_that_is_silent_past_the_drain_loses_the_request_but_not_its_record(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        request = asyncio.ensure_future(fetch_chat(proxy))
        await provider.wait_received()
        await drain(proxy)
        return await request, await stopped_records(proxy)

    provider = BlockedProvider()
    received, (record,) = run_against(provider.serve, tmp_path, act, shutdown={"drain_s": 0.3})

    assert received == b""
    assert (record["outcome"], record["basis"], record["status"]) == ("shutdown", "unsettled", None)


def test_drain_waits_for_the_rest_of_a_request(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, list[dict[str, Any]]]:
        provider.release.set()
        request = chat_request()
        reader, writer = await connect(proxy)
        writer.write(request[:-10])
        await asyncio.sleep(_RECEIVE_S)
        await drain(proxy)
        writer.write(request[-10:])
        received = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        writer.close()
        return received, await stopped_records(proxy)

    provider = BlockedProvider()
    received, (record,) = run_against(provider.serve, tmp_path, act)

    assert b"data: [DONE]\n\n" in received
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_incomplete_request_holds_up_the_exit_for_the_drain_and_no_longer(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[float, bytes, list[dict[str, Any]]]:
        reader, writer = await connect(proxy)
        writer.write(chat_request()[:-10])
        await asyncio.sleep(_RECEIVE_S)
        started = time.monotonic()
        await drain(proxy)
        records = await stopped_records(proxy)
        took_s = time.monotonic() - started
        writer.close()
        return took_s, await reader.read(), records

    constants = {"tornado_proxy.app._LAST_RECORDS_S": _LAST_RECORDS_S}
    took_s, received, records = run_against(
        BlockedProvider().serve, tmp_path, act, constants=constants, shutdown={"drain_s": 1}
    )

    assert 1 <= took_s < _LAST_RECORDS_S / 2
    assert (received, records) == (b"", [])


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [pytest.param(0.5, 1, id="the drain times out"), pytest.param(600, 2, id="a second SIGTERM")],
)
def test_client_that_does_not_read_does_not_hold_up_the_exit(drain_s: float, signals: int, tmp_path: Path) -> None:
    event = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 100_000)
    blocked = asyncio.Event()

    async def send_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE)
        while True:
            writer.write(chunk(event))
            sent = asyncio.ensure_future(writer.drain())
            if not (await asyncio.wait({sent}, timeout=0.2))[0]:
                blocked.set()
            await sent

    async def act(proxy: ProxyProcess) -> tuple[timedelta, list[dict[str, Any]]]:
        reader, writer = await open_chat(proxy)
        stop_reading(reader)
        await asyncio.wait_for(blocked.wait(), TIMEOUT_S)  # all buffers between provider and client are full
        for _ in range(signals):
            await drain(proxy)
        records = await stopped_records(proxy)
        writer.close()
        return logged_at(proxy, "stopped") - logged_at(proxy, "draining"), records

    constants = {"tornado_proxy.app._LAST_RECORDS_S": _LAST_RECORDS_S}
    took, (record,) = run_against(send_forever, tmp_path, act, constants=constants, shutdown={"drain_s": drain_s})

    assert took < timedelta(seconds=_LAST_RECORDS_S / 2)
    assert (record["outcome"], record["status"], record["basis"]) == ("shutdown", 200, "estimated")


def test_second_sigterm_ends_the_process_at_once_and_loses_no_record(tmp_path: Path) -> None:
    async def respond_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()

    async def act(proxy: ProxyProcess) -> tuple[int, list[dict[str, Any]]]:
        reader, writer = await open_chat(proxy)
        await asyncio.wait_for(reader.readuntil(b"word "), TIMEOUT_S)
        await drain(proxy)
        proxy.signal(signal.SIGTERM)
        code = await asyncio.to_thread(proxy.wait_exit)
        writer.close()
        return code, await asyncio.to_thread(proxy.read_records, count=1)

    code, (record,) = run_against(respond_forever, tmp_path, act, shutdown={"drain_s": 600})

    assert code == 0
    assert (record["outcome"], record["basis"]) == ("shutdown", "estimated")


def test_drain_logs_what_it_waits_for_until_it_has_ended(tmp_path: Path) -> None:
    async def respond_forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()

    async def act(proxy: ProxyProcess) -> list[dict[str, Any]]:
        reader, writer = await open_chat(proxy)
        await asyncio.wait_for(reader.readuntil(b"word "), TIMEOUT_S)
        await drain(proxy)
        lines = await asyncio.to_thread(proxy.wait_for_log_lines, '"still draining"', 2)
        proxy.signal(signal.SIGTERM)
        await asyncio.to_thread(proxy.wait_exit)
        writer.close()
        return [json.loads(line) for line in lines[:2]]

    constants = {"tornado_proxy.app._DRAIN_LOG_INTERVAL_S": 0.5}
    first, second = run_against(respond_forever, tmp_path, act, constants=constants, shutdown={"drain_s": 60})

    assert (first["in_flight"], first["arriving"], first["by_project"]) == (1, 0, {PROJECT: 1})
    assert (first["remaining_s"], second["remaining_s"]) == (59.5, 59.0)


def test_request_on_an_open_connection_is_rejected_with_retry_after(tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> tuple[bytes, bytes, list[dict[str, Any]]]:
        reader, writer = await connect(proxy)
        writer.write(b"GET /v1/nothing HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"}}"), TIMEOUT_S)
        request = asyncio.ensure_future(fetch_chat(proxy))
        await provider.wait_received()
        await drain(proxy)
        writer.write(chat_request())
        rejected = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        writer.close()
        provider.release.set()
        return rejected, await request, await stopped_records(proxy)

    provider = BlockedProvider()
    rejected, received, records = run_against(provider.serve, tmp_path, act)

    head, _, body = rejected.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert json.loads(body)["error"]["code"] == "shutting_down"
    assert b"data: [DONE]\n\n" in received
    assert len(records) == 1
