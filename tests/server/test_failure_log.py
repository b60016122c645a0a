"""The log lines of failed requests: they name the cause, so that an operator need not ask the caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import TIMEOUT_S, ProxyProcess, mint, running_proxy, wait_until
from tests.server.chat import CHAT, post_chat
from tests.server.raw_provider import (
    EVENT,
    SSE,
    ScriptedProvider,
    Serve,
    chunk,
    fetch_chat,
    open_chat,
    read_request,
    run_against,
    scripted_provider,
    wait_for_metric,
)
from tests.upstream.authority import make_server_context

REQUEST_LINE = '"message":"request"'


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a port that completes no connection: its queue of one is full."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    address = listening.getsockname()
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(address)
    try:
        yield f"http://127.0.0.1:{address[1]}"
    finally:
        for opened in (*fillers, listening):
            opened.close()


def post_and_find_line(proxy: ProxyProcess) -> tuple[httpx.Response, dict[str, Any]]:
    """Return the response to a chat completion request, and its log line."""
    response = post_chat(proxy)
    line: dict[str, Any] = json.loads(proxy.wait_for_log(response.headers["llm-proxy-request-id"]))
    return response, line


@pytest.mark.parametrize(
    ("upstream", "reason"),
    [
        pytest.param("http://127.0.0.1:1", "Could not connect", id="no listener"),
        pytest.param("http://no-such-host.invalid", "Could not resolve host: no-such-host.invalid", id="unknown name"),
    ],
)
def test_request_line_says_why_the_provider_was_not_reached(upstream: str, reason: str, tmp_path: Path) -> None:
    with running_proxy(tmp_path, upstream) as proxy:
        response, line = post_and_find_line(proxy)

    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert (line["message"], line["outcome"], line["basis"], line["status"]) == (
        "request",
        "upstream_error",
        "free",
        502,
    )
    assert len(line["faults"]) == 1
    assert reason in line["faults"][0]


def test_request_line_says_that_connecting_timed_out(tmp_path: Path) -> None:
    with full_backlog() as upstream, running_proxy(tmp_path, upstream, streams={"connect_timeout_s": 1}) as proxy:
        response, line = post_and_find_line(proxy)

    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
    assert (line["outcome"], line["basis"]) == ("upstream_error", "free")
    assert line["faults"] == ["the provider could not be reached in time"]


def test_request_line_says_that_a_certificate_is_not_trusted(tmp_path: Path) -> None:
    async def run() -> tuple[httpx.Response, dict[str, Any]]:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=make_server_context()) as server:
            upstream = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await asyncio.to_thread(post_to, upstream)

    def post_to(upstream: str) -> tuple[httpx.Response, dict[str, Any]]:
        with running_proxy(tmp_path, upstream) as proxy:
            return post_and_find_line(proxy)

    response, line = asyncio.run(run())

    assert (response.status_code, line["outcome"], line["basis"]) == (502, "upstream_error", "free")
    assert "certificate" in line["faults"][0]


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def close_within_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await writer.drain()


async def stall_within_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await reader.read()


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedProvider]:
    with scripted_provider(tmp_path_factory.mktemp("broken"), streams={"idle_timeout_s": 1}) as running:
        yield running


@pytest.mark.parametrize(
    ("respond", "outcome", "reason"),
    [
        pytest.param(close, "upstream_error", "the connection to the provider broke", id="closes"),
        pytest.param(
            close_within_stream, "upstream_broken", "the connection to the provider broke", id="closes within a stream"
        ),
        pytest.param(
            stall_within_stream, "upstream_broken", "the provider sent nothing for 1 s", id="stalls within a stream"
        ),
        pytest.param(stall, "upstream_error", "the provider sent nothing for 1 s", id="stalls"),
    ],
)
def test_request_line_says_how_a_response_broke(
    respond: Serve, outcome: str, reason: str, provider: ScriptedProvider
) -> None:
    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        before = sum(REQUEST_LINE in line for line in proxy.log)
        await fetch_chat(proxy)
        line = await asyncio.to_thread(proxy.wait_for_log, REQUEST_LINE, count=before + 1)
        found: dict[str, Any] = json.loads(line)
        return found

    line = provider.run(respond, act)

    assert line["outcome"] == outcome
    assert reason in line["faults"][0]


def test_rejection_line_has_the_fault_of_server_or_token_and_of_the_body_the_model_only(tmp_path: Path) -> None:
    def post(token: str, body: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        httpx.post(f"{proxy.base_url}/v1/chat/completions", json=body, headers=headers, timeout=TIMEOUT_S)

    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy:
        post(mint(exp=datetime.now(UTC) - timedelta(hours=1)), CHAT)
        token = json.loads(proxy.wait_for_log("invalid_api_key"))
        post(mint(), {"model": "gpt-of-a-caller", "messages": [{"role": "user", "content": "words-of-a-caller"}]})
        body = json.loads(proxy.wait_for_log("model_not_priced"))
        proxy.ledger.unlink()
        wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")
        post(mint(), CHAT)
        server = json.loads(proxy.wait_for_log("ledger_unavailable"))

    assert (token["message"], token["status"]) == ("request rejected", 401)
    assert "token expired at " in token["reason"]
    assert (body["status"], body["reason"], body["model"]) == (400, None, "gpt-of-a-caller")
    assert "the file is missing" in server["reason"]
    assert not [line for line in proxy.log if "words-of-a-caller" in line]


def test_drain_that_reaches_a_limit_is_logged_with_it_and_estimated(tmp_path: Path) -> None:
    """The first client's response is drained until the time limit; the second's is not drained at all."""

    async def disconnect(proxy: ProxyProcess) -> None:
        reader, writer = await open_chat(proxy)
        await asyncio.wait_for(reader.readuntil(b"word "), TIMEOUT_S)
        writer.transport.abort()

    async def act(proxy: ProxyProcess) -> tuple[list[str], str, list[dict[str, Any]]]:
        await disconnect(proxy)
        await wait_for_metric(proxy, "llm_proxy_drains 1.0")
        await disconnect(proxy)
        await asyncio.to_thread(proxy.wait_for_log, REQUEST_LINE)
        _, metrics = await asyncio.to_thread(proxy.fetch_admin, "/metrics")
        lines = await asyncio.to_thread(proxy.wait_for_log_lines, REQUEST_LINE, 2)
        return lines, metrics, await asyncio.to_thread(proxy.read_records, count=2)

    # The second client has to connect and disconnect within the time limit, also on a busy machine.
    streams = {"drain_limit_s": 4, "drain_max": 1}
    lines, metrics, records = run_against(stall_within_stream, tmp_path, act, streams=streams)

    at_time_limit = "not drained to its end: took more than 4 s (streams.drain_limit_s)"
    at_maximum = "not drained: 1 responses are being drained already (streams.drain_max)"
    assert [json.loads(line)["faults"] for line in lines] == [[at_maximum], [at_time_limit]]
    assert "llm_proxy_drains 1.0" in metrics
    assert {(record["outcome"], record["status"], record["basis"]) for record in records} == {
        ("client_closed", 499, "estimated")
    }
    assert {record["estimate_method"] for record in records} == {"utf8_bytes_div_4"}
