"""Realtime sessions through the real server to the simulator: the SDK, raw sockets, and what the ledger says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.harness import OPENAI_KEY, ProxyProcess, mint, running_proxy
from tests.stress.gc_disabled import UNCOLLECTED
from tornado_proxy.simulator import Simulator, running_simulator

MODEL = "gpt-realtime"
MILLION = Decimal(1_000_000)


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[Simulator, str]]:
    one = Simulator(keys={"openai": OPENAI_KEY}, record=True)
    with running_simulator(one) as url:
        yield one, url


@pytest.fixture(scope="module")
def proxy(simulator: tuple[Simulator, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with running_proxy(tmp_path_factory.mktemp("realtime"), simulator[1]) as running:
        yield running


def socket_url(proxy: ProxyProcess, query: str = f"model={MODEL}", path: str = "/openai/v1/realtime") -> str:
    return f"ws{proxy.base_url.removeprefix('http')}{path}?{query}"


@contextlib.asynccontextmanager
async def session(
    proxy: ProxyProcess, query: str = f"model={MODEL}", token: str | None = None
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token or mint()}"}
    async with websockets.connect(
        socket_url(proxy, query), additional_headers=headers, max_size=None, ping_interval=None
    ) as socket:
        yield socket


async def next_event(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of that kind; those before it are passed over."""
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 20))
        if event["type"] == kind:
            return event


async def close_code(socket: ClientConnection) -> int | None:
    """With what code the server closes; events before it are passed over."""
    async for _ in socket:
        pass
    await asyncio.wait_for(socket.wait_closed(), 20)
    return socket.close_code


async def say(socket: ClientConnection, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    await send(socket, "conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await send(socket, "response.create", response={"output_modalities": ["text"]})


async def send(socket: ClientConnection, kind: str, **members: Any) -> None:
    await socket.send(json.dumps({"type": kind, **members}))


def records_of(proxy: ProxyProcess, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The records of a session; waits for `count` of them."""
    assert socket.response is not None
    session_id = socket.response.headers["Llm-Proxy-Request-Id"]
    return proxy.read_session_records(session_id, count)


def test_the_sdk_holds_a_conversation_and_each_response_is_billed(proxy: ProxyProcess) -> None:
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

    records = [one for one in proxy.read_records(count=2) if one["participant"] == "grace"]
    assert len(records) == 2
    assert {one["session"] for one in records} == {records[0]["session"]}
    for response, record in zip((first, second), records, strict=True):
        usage = response.usage
        # gpt-realtime, text: 4 in, 16 out, a million tokens
        text_in = usage.input_token_details.text_tokens - (usage.input_token_details.cached_tokens or 0)
        items = {item["type"]: Decimal(item["amount"]) for item in record["line_items"]}
        assert items["input_tokens"] == text_in * 4 / MILLION
        assert items["output_tokens"] == usage.output_token_details.text_tokens * 16 / MILLION
        assert (record["basis"], record["outcome"], record["endpoint"]) == ("reported", "completed", "/v1/realtime")


def test_a_browser_brings_its_token_as_a_subprotocol(proxy: ProxyProcess, simulator: tuple[Simulator, str]) -> None:
    token = mint(name="hedy")

    async def talk() -> str | None:
        offered = ["realtime", f"openai-insecure-api-key.{token}", f"unheard-of.{token}", "openai-beta.realtime-v1"]
        async with websockets.connect(socket_url(proxy, path="/v1/realtime"), subprotocols=offered) as socket:  # type: ignore[arg-type]
            await next_event(socket, "session.created")
            return socket.subprotocol

    assert asyncio.run(talk()) == "realtime"
    upgrades = [seen for seen in simulator[0].requests if seen.header("Upgrade")]
    assert upgrades[-1].header("Sec-WebSocket-Protocol") == "realtime,openai-beta.realtime-v1"
    assert not [value for _, value in upgrades[-1].headers if token in value]


@pytest.mark.parametrize(
    ("query", "token", "status", "code"),
    [
        pytest.param(f"model={MODEL}", "nonsense", 401, "invalid_api_key", id="no valid credential"),
        pytest.param(f"model={MODEL}", None, 401, "invalid_api_key", id="no credential"),
        pytest.param("model=gpt-unknown", mint(), 400, "model_not_priced", id="no price"),
        pytest.param("", mint(), 400, "bad_request", id="no model"),
        pytest.param(f"model={MODEL}&model=x", mint(), 400, "bad_request", id="two models"),
        pytest.param(f"model={MODEL}", mint(models=["openai/gpt-4o*"]), 403, "not_allowed", id="not granted"),
        pytest.param("call_id=rtc_of_nobody", mint(), 404, "not_found", id="the call of another"),
    ],
)
def test_a_refusal_is_plain_http_before_the_upgrade(
    proxy: ProxyProcess, query: str, token: str | None, status: int, code: str
) -> None:
    async def connect() -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(socket_url(proxy, query), additional_headers=headers):
                pass
        return refused.value.response.status_code, json.loads(refused.value.response.body)

    got, body = asyncio.run(connect())

    assert (got, body["error"]["code"]) == (status, code)


def test_an_event_that_would_use_an_unpriced_model_is_answered_and_goes_nowhere(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        async with session(proxy) as socket:
            transcription = {"audio": {"input": {"transcription": {"model": "whisper-9"}}}}
            await send(socket, "session.update", event_id="mine", session=transcription)
            error = await next_event(socket, "error")
            await say(socket, "still here")
            return error, await next_event(socket, "response.done")

    error, done = asyncio.run(talk())

    assert error["error"]["event_id"] == "mine"
    assert error["error"]["code"] == "model_not_priced"
    assert done["response"]["status"] == "completed"


def test_a_transcription_is_billed_at_the_model_that_the_session_set(proxy: ProxyProcess) -> None:
    async def talk() -> tuple[ClientConnection, dict[str, Any]]:
        async with session(proxy) as socket:
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

    (record,) = records_of(proxy, socket, 1)
    usage = event["usage"]
    items = {item["type"]: Decimal(item["quantity"]) for item in record["line_items"]}
    assert record["model"] == "gpt-4o-mini-transcribe"
    assert items["input_audio_tokens"] == usage["input_token_details"]["audio_tokens"]
    assert items["output_tokens"] == usage["output_tokens"]


def test_a_translation_is_billed_by_its_length(proxy: ProxyProcess) -> None:
    async def talk() -> ClientConnection:
        url = socket_url(proxy, "model=gpt-realtime-translate", "/v1/realtime/translations")
        headers = {"Authorization": f"Bearer {mint()}"}
        async with websockets.connect(url, additional_headers=headers) as socket:
            await send(socket, "session.input_audio_buffer.append", audio="AAAA" * 80_000)  # 5 s
            await next_event(socket, "session.output_transcript.delta")
            await send(socket, "session.close")
            await next_event(socket, "session.closed")
            return socket

    (record,) = records_of(proxy, asyncio.run(talk()), 1)

    items = {item["type"]: item for item in record["line_items"]}
    assert Decimal(items["session_seconds"]["quantity"]) == 5
    assert Decimal(items["session_seconds"]["amount"]) == Decimal("0.002833333333")  # 5 s of 0.034 a minute
    assert (record["basis"], record["model"]) == ("inferred", "gpt-realtime-translate")


def test_a_message_of_twelve_megabytes_passes_whole(proxy: ProxyProcess) -> None:
    async def talk() -> dict[str, Any]:
        async with session(proxy) as socket:
            await send(socket, "input_audio_buffer.append", audio="AAAA" * 3_000_000)
            await send(socket, "input_audio_buffer.clear")
            return await next_event(socket, "input_audio_buffer.cleared")

    assert asyncio.run(talk())["type"] == "input_audio_buffer.cleared"


def test_the_provider_s_refusal_is_passed_on_with_its_words(tmp_path: Path) -> None:
    with (
        running_simulator(Simulator(keys={"openai": "another-key-than-the-proxy-has"})) as url,
        running_proxy(tmp_path, url) as proxy,
    ):

        async def connect() -> tuple[int, bytes]:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with session(proxy):
                    pass
            return refused.value.response.status_code, refused.value.response.body or b""

        status, body = asyncio.run(connect())

    assert status == 401
    assert json.loads(body)["error"]
    assert OPENAI_KEY.encode() not in body


def test_a_provider_that_cannot_be_reached_is_a_502(tmp_path: Path) -> None:
    with running_proxy(tmp_path, "http://127.0.0.1:1") as proxy:

        async def connect() -> int:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with session(proxy):
                    pass
            return refused.value.response.status_code

        assert asyncio.run(connect()) == 502


def test_a_client_that_leaves_while_a_response_runs_pays_what_one_that_stays_pays(proxy: ProxyProcess) -> None:
    async def leave() -> ClientConnection:
        async with session(proxy) as socket:
            await say(socket, "[[sim tokens=40 delay-ms=20]]")
            await next_event(socket, "response.created")
            return socket

    (record,) = records_of(proxy, asyncio.run(leave()), 1)

    assert record["basis"] == "reported"
    assert Decimal(record["total"]) > 0


def test_an_idle_session_is_closed(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1], websockets={"idle_timeout_s": 0.4}) as proxy:

        async def wait() -> tuple[int, str]:
            async with session(proxy) as socket:
                await next_event(socket, "session.created")
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await asyncio.wait_for(socket.recv(), 20)
                assert closed.value.rcvd is not None
                return closed.value.rcvd.code, closed.value.rcvd.reason

        assert asyncio.run(wait()) == (1001, "no message for 0.4 s")


def test_a_credential_that_expires_closes_its_session(simulator: tuple[Simulator, str], tmp_path: Path) -> None:
    with running_proxy(tmp_path, simulator[1], websockets={"recheck_s": 0.2}) as proxy:

        async def wait() -> int:
            token = mint(exp=int(time.time()) + 2)
            async with session(proxy, token=token) as socket:
                await next_event(socket, "session.created")
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await asyncio.wait_for(socket.recv(), 20)
                assert closed.value.rcvd is not None
                return closed.value.rcvd.code

        assert asyncio.run(wait()) == 1008


def test_shutdown_closes_an_idle_session_at_once_and_a_busy_one_when_it_is_done(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, simulator[1]) as proxy:

        async def talk() -> tuple[int, int, str]:
            async with session(proxy) as idle, session(proxy) as busy:
                await next_event(idle, "session.created")
                await say(busy, "[[sim tokens=30 delay-ms=20]]")
                await next_event(busy, "response.created")
                proxy.signal(signal.SIGTERM)
                done = await next_event(busy, "response.done")
                return await close_code(idle), await close_code(busy), done["response"]["status"]

        assert asyncio.run(talk()) == (1001, 1001, "completed")
        assert proxy.wait_exit() == 0
        (record,) = proxy.read_records(count=1)
        assert record["basis"] == "reported"


def test_a_killed_server_shows_the_response_in_progress_as_unsettled(
    simulator: tuple[Simulator, str], tmp_path: Path
) -> None:
    async def talk(proxy: ProxyProcess) -> None:
        async with session(proxy) as socket:
            await say(socket, "first")
            await next_event(socket, "response.done")
            await say(socket, "[[sim tokens=400 delay-ms=20]]")
            await next_event(socket, "response.output_text.delta")
            proxy.signal(signal.SIGKILL)

    with contextlib.suppress(websockets.ConnectionClosed), running_proxy(tmp_path, simulator[1]) as proxy:
        asyncio.run(talk(proxy))
        proxy.wait_exit()
    with running_proxy(tmp_path, simulator[1]) as proxy:
        records = proxy.read_records(count=2)

    assert sorted(one["basis"] for one in records) == ["reported", "unsettled"]


def test_a_plain_request_is_told_to_upgrade(proxy: ProxyProcess) -> None:
    answer = httpx.get(proxy.base_url + f"/v1/realtime?model={MODEL}", headers={"Authorization": f"Bearer {mint()}"})

    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.json()["error"]["code"] == "upgrade_required"


@pytest.mark.parametrize("leave", ["close", "abort"])
def test_a_session_that_has_ended_leaves_nothing_to_the_collector_of_cycles(
    simulator: tuple[Simulator, str], tmp_path: Path, leave: str
) -> None:
    async def run(proxy: ProxyProcess, until: str) -> None:
        async with session(proxy) as socket:
            await say(socket, "hi")
            await next_event(socket, until)
            if leave == "abort":
                socket.transport.abort()

    async def run_all(proxy: ProxyProcess) -> None:
        await asyncio.gather(*(run(proxy, until) for until in ("response.created", "response.done") for _ in range(5)))

    with running_proxy(tmp_path, simulator[1], program="tests.stress.gc_disabled") as proxy:
        asyncio.run(run_all(proxy))
        assert len(proxy.read_records(count=10)) == 10
        while sum('"message":"session ended"' in line for line in tuple(proxy.log)) < 10:
            time.sleep(0.02)
        proxy.signal(signal.SIGUSR1)
        left = proxy.wait_for_log(UNCOLLECTED)

    assert left == f"{UNCOLLECTED}{{}}"
