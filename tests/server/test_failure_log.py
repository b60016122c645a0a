"""What an operator reads in the log when a provider fails: enough to know what to mend, without asking the caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import ProxyProcess, mint, running_proxy, wait_until
from tests.server.raw_provider import EVENT, SSE, chunk, fetch_chat, open_chat, read_request, run_against
from tests.upstream.authority import make_server_context

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """An address that answers no attempt to connect."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    address = listening.getsockname()
    fillers = [socket.socket() for _ in range(3)]
    for one in fillers:
        one.setblocking(False)
        one.connect_ex(address)
    try:
        yield f"http://127.0.0.1:{address[1]}"
    finally:
        for one in (*fillers, listening):
            one.close()


def told(proxy: ProxyProcess) -> tuple[httpx.Response, dict[str, Any]]:
    """The answer to one call, and its line in the log."""
    headers = {"Authorization": f"Bearer {mint()}"}
    answered = httpx.post(f"{proxy.base_url}/v1/chat/completions", json=CHAT, headers=headers, timeout=30)
    line: dict[str, Any] = json.loads(proxy.wait_for_log(answered.headers["llm-proxy-request-id"]))
    return answered, line


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        pytest.param("http://127.0.0.1:1", "Could not connect", id="nobody listens"),
        pytest.param("http://no-such-host.invalid", "Could not resolve host: no-such-host.invalid", id="no such name"),
    ],
)
def test_the_line_of_a_call_says_why_the_provider_was_not_reached(upstream: str, words: str, tmp_path: Path) -> None:
    with running_proxy(tmp_path, upstream) as proxy:
        answered, line = told(proxy)

    assert (answered.status_code, answered.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert (line["message"], line["outcome"], line["basis"], line["status"]) == (
        "request",
        "upstream_error",
        "free",
        502,
    )
    assert len(line["faults"]) == 1
    assert words in line["faults"][0]


def test_the_line_of_a_call_says_that_a_connection_did_not_come_in_time(tmp_path: Path) -> None:
    with full_backlog() as upstream, running_proxy(tmp_path, upstream, streams={"connect_timeout_s": 1}) as proxy:
        answered, line = told(proxy)

    assert (answered.status_code, answered.json()["error"]["code"]) == (504, "upstream_timeout")
    assert (line["outcome"], line["basis"]) == ("upstream_error", "free")
    assert line["faults"] == ["the provider could not be reached in time"]


def test_the_line_of_a_call_says_that_a_certificate_is_not_trusted(tmp_path: Path) -> None:
    async def run() -> tuple[httpx.Response, dict[str, Any]]:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=make_server_context()) as server:
            upstream = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await asyncio.to_thread(ask_at, upstream)

    def ask_at(upstream: str) -> tuple[httpx.Response, dict[str, Any]]:
        with running_proxy(tmp_path, upstream) as proxy:
            return told(proxy)

    answered, line = asyncio.run(run())

    assert (answered.status_code, line["outcome"], line["basis"]) == (502, "upstream_error", "free")
    assert "certificate" in line["faults"][0]


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await writer.drain()


async def falls_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(SSE + chunk(EVENT))
    await reader.read()


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


@pytest.mark.parametrize(
    ("says", "outcome", "words"),
    [
        pytest.param(closes, "upstream_error", "the connection to the provider broke", id="closes"),
        pytest.param(cuts, "upstream_broken", "the connection to the provider broke", id="cuts its answer"),
        pytest.param(falls_silent, "upstream_broken", "the provider sent nothing for 1 s", id="falls silent"),
        pytest.param(is_silent, "upstream_error", "the provider sent nothing for 1 s", id="is silent"),
    ],
)
def test_the_line_of_a_call_says_how_an_answer_broke(says: Say, outcome: str, words: str, tmp_path: Path) -> None:
    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        await fetch_chat(proxy)
        line: dict[str, Any] = json.loads(await asyncio.to_thread(proxy.wait_for_log, '"message":"request"'))
        return line

    line = run_against(says, tmp_path, act, streams={"idle_timeout_s": 1})

    assert line["outcome"] == outcome
    assert words in line["faults"][0]


def test_the_line_of_a_refusal_says_what_is_wrong_with_the_server_or_a_token_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    def ask_with(token: str, body: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        httpx.post(f"{proxy.base_url}/v1/chat/completions", json=body, headers=headers, timeout=30)

    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy:
        ask_with(mint(exp=datetime.now(UTC) - timedelta(hours=1)), CHAT)
        token = json.loads(proxy.wait_for_log("invalid_api_key"))
        ask_with(mint(), {"model": "words-of-a-caller", "messages": []})
        body = json.loads(proxy.wait_for_log("model_not_priced"))
        proxy.ledger.unlink()
        wait_until(lambda: proxy.fetch_admin("/readyz")[0] == 503, "readiness to fail")
        ask_with(mint(), CHAT)
        server = json.loads(proxy.wait_for_log("ledger_unavailable"))

    assert (token["message"], token["status"]) == ("request rejected", 401)
    assert "the token has expired" in token["reason"]
    assert (body["status"], body["reason"]) == (400, None)
    assert "the file is gone" in server["reason"]
    assert not [line for line in proxy.log if "words-of-a-caller" in line]


def test_a_drain_at_a_limit_says_which_and_its_cost_is_an_estimate(tmp_path: Path) -> None:
    """The first client's answer is drained until its time is over, the second's not at all."""

    async def leave(proxy: ProxyProcess) -> None:
        reader, writer = await open_chat(proxy)
        await asyncio.wait_for(reader.readuntil(b"word "), 20)
        writer.transport.abort()

    async def ended(proxy: ProxyProcess, calls: int) -> list[dict[str, Any]]:
        while len(lines := [one for one in proxy.log if '"message":"request"' in one]) < calls:  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.02)
        return [json.loads(line) for line in lines]

    async def act(proxy: ProxyProcess) -> tuple[list[dict[str, Any]], str, list[dict[str, Any]]]:
        async with asyncio.timeout(20):
            await leave(proxy)
            while "llm_proxy_drains 1.0" not in (await asyncio.to_thread(proxy.fetch_admin, "/metrics"))[1]:
                pass
            await leave(proxy)
            await ended(proxy, 1)
            _, meanwhile = await asyncio.to_thread(proxy.fetch_admin, "/metrics")
            return await ended(proxy, 2), meanwhile, await asyncio.to_thread(proxy.read_records, count=2)

    streams = {"drain_limit_s": 4, "drain_max": 1}
    lines, meanwhile, records = run_against(falls_silent, tmp_path, act, streams=streams)

    of_time = "not drained to its end: that takes more than 4 s (streams.drain_limit_s)"
    of_number = "not drained: 1 answers are drained already (streams.drain_max)"
    assert [line["faults"] for line in lines] == [[of_number], [of_time]]
    assert "llm_proxy_drains 1.0" in meanwhile
    assert {(one["outcome"], one["status"], one["basis"]) for one in records} == {("client_closed", 499, "estimated")}
    assert {one["estimate_method"] for one in records} == {"utf8_bytes_div_4"}
