"""Realtime sessions from SDK and plain WebSocket clients to the simulator, and their records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import OPENAI_KEY, TIMEOUT_S, ProxyProcess, mint, running_proxy
from tests.server.realtime import (
    MODEL,
    connect_session,
    fetch_rejection,
    next_event,
    read_session,
    send,
    send_text,
    wait_closed,
    websocket_url,
)
from tests.stress.gc_disabled import UNCOLLECTED
from tornado_proxy.simulator import Simulator, running_simulator

MILLION = Decimal(1_000_000)


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[Simulator, str]]:
    running = Simulator(keys={"openai": OPENAI_KEY}, record=True)
    with running_simulator(running) as url:
        yield running, url


@pytest.fixture(scope="module")
def proxy(simulator: tuple[Simulator, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path_factory.mktemp("realtime"), simulator[1]) as running:
        yield running


def test_sdk_conversation_is_billed_per_response(proxy: ProxyProcess) -> None:
    async def talk() -> list[Any]:
        done = []
        async with (
            openai.AsyncOpenAI(base_url=proxy.base_url + "/openai/v1", api_key=mint(name="grace")) as client,
            client.realtime.connect(model=MODEL) as connection,
        ):
            for text in ("Hello", "And again"):
                await connection.conversation.item.create(
                    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
                )
                await connection.response.create(response={"output_modalities": ["text"]})
                async for event in connection:
                    if event.type == "response.done":
                        done.append(event.response)
                        break
        return done

    first, second = asyncio.run(talk())

    records = [record for record in proxy.read_records(count=2) if record["participant"] == "grace"]
    assert len(records) == 2
    assert {record["session"] for record in records} == {records[0]["session"]}
    for response, record in zip((first, second), records, strict=True):
        usage = response.usage
        # gpt-realtime, text: 4 in, 16 out, USD per million tokens
        text_in = usage.input_token_details.text_tokens - (usage.input_token_details.cached_tokens or 0)
        items = {item["type"]: Decimal(item["amount"]) for item in record["line_items"]}
        assert items["input_tokens"] == text_in * 4 / MILLION
        assert items["output_tokens"] == usage.output_token_details.text_tokens * 16 / MILLION
        assert (record["basis"], record["outcome"], record["endpoint"]) == ("reported", "completed", "/v1/realtime")


def test_browser_sends_its_token_as_a_subprotocol(proxy: ProxyProcess, simulator: tuple[Simulator, str]) -> None:
    token = mint(name="hedy")

    async def talk() -> str | None:
        offered = ["realtime", f"openai-insecure-api-key.{token}", f"unknown.{token}", "openai-beta.realtime-v1"]
        async with websockets.connect(websocket_url(proxy, "/v1/realtime"), subprotocols=offered) as socket:  # type: ignore[arg-type]
            await next_event(socket, "session.created")
            return socket.subprotocol

    assert asyncio.run(talk()) == "realtime"
    upgrades = [request for request in simulator[0].requests if request.header("Upgrade")]
    assert upgrades[-1].header("Sec-WebSocket-Protocol") == "realtime,openai-beta.realtime-v1"
    assert not [value for _, value in upgrades[-1].headers if token in value]


@pytest.mark.parametrize(
    ("query", "token", "status", "code"),
    [
        pytest.param(f"model={MODEL}", "nonsense", 401, "invalid_api_key", id="invalid credential"),
        pytest.param(f"model={MODEL}", None, 401, "invalid_api_key", id="no credential"),
        pytest.param("model=gpt-unknown", mint(), 400, "model_not_priced", id="no price"),
        pytest.param("", mint(), 400, "bad_request", id="no model"),
        pytest.param(f"model={MODEL}&model=x", mint(), 400, "bad_request", id="two models"),
        pytest.param(f"model={MODEL}", mint(models=["openai/gpt-4o*"]), 403, "not_allowed", id="not granted"),
        pytest.param("call_id=rtc_of_nobody", mint(), 404, "not_found", id="a call of another project"),
    ],
)
def test_rejected_upgrade_is_an_http_response(
    proxy: ProxyProcess, query: str, token: str | None, status: int, code: str
) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    rejection = asyncio.run(fetch_rejection(websocket_url(proxy, query=query), additional_headers=headers))

    error = json.loads(rejection.body or b"")["error"]
    assert (rejection.status_code, error["code"]) == (status, code)


def test_event_with_an_unpriced_model_gets_an_error_event_and_is_not_sent(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        async with connect_session(proxy) as socket:
            transcription = {"audio": {"input": {"transcription": {"model": "whisper-9"}}}}
            await send(socket, "session.update", event_id="mine", session=transcription)
            error = await next_event(socket, "error")
            await send_text(socket, "still here")
            return error, await next_event(socket, "response.done")

    error, done = asyncio.run(talk())

    assert error["error"]["event_id"] == "mine"
    assert error["error"]["code"] == "model_not_priced"
    assert done["response"]["status"] == "completed"


def test_transcription_is_billed_with_the_model_that_the_session_configures(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, dict[str, Any]]:
        async with connect_session(proxy) as socket:
            await send(
                socket,
                "session.update",
                session={"audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}},
            )
            await next_event(socket, "session.updated")
            await send(socket, "input_audio_buffer.append", audio="AAAA" * 16_000)
            await send(socket, "input_audio_buffer.commit")
            return socket, await next_event(socket, "conversation.item.input_audio_transcription.completed")

    socket, event = asyncio.run(talk())

    (record,) = read_session(proxy, socket, 1)
    usage = event["usage"]
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert record["model"] == "gpt-4o-mini-transcribe"
    assert items["input_audio_tokens"] == usage["input_token_details"]["audio_tokens"]
    assert items["output_tokens"] == usage["output_tokens"]


def test_translation_is_billed_by_its_duration(proxy: ProxyProcess) -> None:
    async def talk() -> ClientConnection:
        url = websocket_url(proxy, "/v1/realtime/translations", "model=gpt-realtime-translate")
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(url, additional_headers=headers) as socket:
            await send(socket, "session.input_audio_buffer.append", audio="AAAA" * 80_000)  # 5 s
            await next_event(socket, "session.output_transcript.delta")
            await send(socket, "session.close")
            await next_event(socket, "session.closed")
            return socket

    (record,) = read_session(proxy, asyncio.run(talk()), 1)

    items = {item["type"]: item for item in record["line_items"]}
    assert Decimal(items["session_seconds"]["quantity"]) == 5
    assert Decimal(items["session_seconds"]["amount"]) == Decimal("0.002833333333")  # 5 s of 0.034 a minute
    assert (record["basis"], record["model"]) == ("inferred", "gpt-realtime-translate")


def test_message_of_twelve_megabytes_is_relayed(proxy: ProxyProcess) -> None:
    async def talk() -> dict[str, Any]:
        async with connect_session(proxy) as socket:
            # Above the 10 MB that Tornado allows by default, below the configured 32 MB.
            await send(socket, "input_audio_buffer.append", audio="AAAA" * 3_000_000)
            await send(socket, "input_audio_buffer.clear")
            return await next_event(socket, "input_audio_buffer.cleared")

    assert asyncio.run(talk())["type"] == "input_audio_buffer.cleared"


def test_provider_s_rejection_is_relayed_with_its_body(tmp_path: Path) -> None:
    with (
        running_simulator(Simulator(keys={"openai": "another-key-than-the-proxy-has"})) as url,
        running_proxy(tmp_path, url) as proxy,
    ):
        headers = {"Authorization": f"Bearer {mint()}"}
        rejection = asyncio.run(fetch_rejection(websocket_url(proxy), additional_headers=headers))

    body = rejection.body or b""
    assert rejection.status_code == 401
    assert json.loads(body)["error"]
    assert OPENAI_KEY.encode() not in body


def test_unreachable_provider_is_a_502(tmp_path: Path) -> None:
    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy:
        headers = {"Authorization": f"Bearer {mint()}"}
        rejection = asyncio.run(fetch_rejection(websocket_url(proxy), additional_headers=headers))

    assert rejection.status_code == 502


def test_client_that_disconnects_within_a_response_pays_for_all_of_it(proxy: ProxyProcess) -> None:
    async def disconnect() -> ClientConnection:
        async with connect_session(proxy) as socket:
            # 40 tokens, one each 20 ms: the response runs for 0.8 s after the client has left.
            await send_text(socket, "[[sim tokens=40 delay-ms=20]]")
            await next_event(socket, "response.created")
            return socket

    (record,) = read_session(proxy, asyncio.run(disconnect()), 1)

    assert record["basis"] == "reported"
    assert Decimal(record["total"]) > 0


def test_idle_session_is_closed(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1], websockets={"idle_timeout_s": 0.4}) as proxy:

        async def wait() -> tuple[int | None, str | None]:
            async with connect_session(proxy) as socket:
                await next_event(socket, "session.created")
                return await wait_closed(socket)

        assert asyncio.run(wait()) == (1001, "no message for 0.4 s")


def test_session_is_closed_when_its_token_expires(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1], websockets={"recheck_s": 0.2}) as proxy:

        async def wait() -> int | None:
            # `exp` is in whole seconds: the token is valid for one to two seconds.
            token = mint(exp=int(time.time()) + 2)
            async with connect_session(proxy, token=token) as socket:
                await next_event(socket, "session.created")
                return (await wait_closed(socket))[0]

        assert asyncio.run(wait()) == 1008


def test_shutdown_closes_an_idle_session_at_once_and_a_busy_one_after_its_response(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:

        async def talk() -> tuple[int | None, int | None, str]:
            async with connect_session(proxy) as idle, connect_session(proxy) as busy:
                await next_event(idle, "session.created")
                await send_text(busy, "[[sim tokens=30 delay-ms=20]]")
                await next_event(busy, "response.created")
                proxy.signal(signal.SIGTERM)
                done = await next_event(busy, "response.done")
                return (await wait_closed(idle))[0], (await wait_closed(busy))[0], done["response"]["status"]

        assert asyncio.run(talk()) == (1001, 1001, "completed")
        assert proxy.wait_exit() == 0
        (record,) = proxy.read_records(count=1)
        assert record["basis"] == "reported"


def test_response_in_progress_at_a_kill_is_unsettled(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    async def talk(proxy: ProxyProcess) -> None:
        async with connect_session(proxy) as socket:
            await send_text(socket, "first")
            await next_event(socket, "response.done")
            await send_text(socket, "[[sim tokens=400 delay-ms=20]]")
            await next_event(socket, "response.output_text.delta")
            proxy.signal(signal.SIGKILL)

    with contextlib.suppress(websockets.ConnectionClosed), running_proxy(tmp_path, simulator[1]) as proxy:
        asyncio.run(talk(proxy))
        proxy.wait_exit()
    with running_proxy(tmp_path, simulator[1]) as proxy:
        records = proxy.read_records(count=2)

    assert sorted(record["basis"] for record in records) == ["reported", "unsettled"]


def test_request_without_upgrade_is_a_426(proxy: ProxyProcess) -> None:
    headers = {"Authorization": f"Bearer {mint()}"}
    response = httpx.get(proxy.base_url + f"/v1/realtime?model={MODEL}", headers=headers, timeout=TIMEOUT_S)

    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"
    assert response.json()["error"]["code"] == "upgrade_required"


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ended_session_leaves_nothing_to_the_cycle_collector(
    simulator: tuple[Simulator, str], tmp_path: Path, end: str
) -> None:
    async def run(proxy: ProxyProcess, until: str) -> None:
        async with connect_session(proxy) as socket:
            await send_text(socket, "hi")
            await next_event(socket, until)
            if end == "abort":
                socket.transport.abort()

    async def run_all(proxy: ProxyProcess) -> None:
        await asyncio.gather(*(run(proxy, until) for until in ("response.created", "response.done") for _ in range(5)))

    with running_proxy(tmp_path, simulator[1], program="tests.stress.gc_disabled") as proxy:
        asyncio.run(run_all(proxy))
        assert len(proxy.read_records(count=10)) == 10
        proxy.wait_for_log('"message":"session ended"', count=10)
        proxy.signal(signal.SIGUSR2)
        uncollected = proxy.wait_for_log(UNCOLLECTED)

    assert uncollected == f"{UNCOLLECTED}{{}}"
