"""Realtime sessions whose provider or client breaks off, floods, stalls or loses its right, through the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from tests.harness import PROJECT, ProxyProcess
from tests.server import raw_provider
from tests.server.test_realtime import next_event, records_of, session
from tests.stress.async_proxy import async_proxy, becomes_true
from tests.stress.process_stats import resident_kib
from tests.upstream.authority import make_server_context, write_ca_file

Speak = Callable[[ServerConnection], Awaitable[None]]
Act = Callable[[ProxyProcess], Awaitable[Any]]

CREATED = '{"type":"session.created","session":{"type":"realtime","model":"gpt-realtime"}}'
BEGUN = '{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}'
DELTA = '{"type":"response.output_audio.delta","response_id":"resp_1","delta":"%s"}'
SOME = DELTA % ("A" * 6400)
DONE = (
    '{"type":"response.done","response":{"id":"resp_1","status":"completed","usage":{"total_tokens":30,'
    '"input_tokens":10,"output_tokens":20,"input_token_details":{"text_tokens":10,"audio_tokens":0,"cached_tokens":0},'
    '"output_token_details":{"text_tokens":20,"audio_tokens":0}}}}'
)
ASK = '{"type":"response.create"}'


def run_against(speak: Speak, act: Act, **config: Any) -> Any:
    """What `act` gives, with the real server in front of a provider that does `speak` with each session."""

    async def quietly(connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await speak(connection)

    async def run() -> Any:
        async with serve(quietly, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with async_proxy(f"http://127.0.0.1:{port}", **config) as proxy, asyncio.timeout(40):
                return await act(proxy)

    return asyncio.run(run())


async def begin(connection: ServerConnection, *said: str) -> None:
    """The provider's side of a session up to the middle of its first response."""
    await connection.send(CREATED)
    await connection.recv()
    for event in (BEGUN, *said):
        await connection.send(event)


async def records(proxy: ProxyProcess, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    return await asyncio.to_thread(records_of, proxy, socket, count)


async def faults_of(proxy: ProxyProcess, record: dict[str, Any]) -> list[str]:
    """What the log says of a record's faults."""
    faults: list[str] = json.loads(await asyncio.to_thread(proxy.wait_for_log, record["request_id"]))["faults"]
    return faults


async def until_closed(socket: ClientConnection) -> tuple[list[str | bytes], int | None, str | None]:
    """All messages, and the code and the reason that the session was closed with."""
    came = [message async for message in _messages(socket)]
    await socket.wait_closed()
    return came, socket.close_code, socket.close_reason


async def _messages(socket: ClientConnection) -> Any:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            yield await socket.recv()


def test_frames_pass_in_both_directions_as_they_are() -> None:
    heard: list[str | bytes] = []
    up: list[str | bytes] = [
        '{"type":"input_audio_buffer.append", "audio":"ünï"}',
        b'{"type":"input_audio_buffer.clear"}',
    ]
    down: list[str | bytes] = [CREATED, b"\x00\xff binary", '{"type":"unheard.of","é":1}  ', "no JSON at all", ""]

    async def speak(connection: ServerConnection) -> None:
        for message in down:
            await connection.send(message)
        for _ in up:
            heard.append(await connection.recv())
        await connection.close()

    async def act(proxy: ProxyProcess) -> list[str | bytes]:
        async with session(proxy) as socket:
            for message in up:
                await socket.send(message)
            return (await until_closed(socket))[0]

    assert run_against(speak, act) == down
    assert heard == up


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "later"), (4999, "ünï")])
def test_the_provider_s_code_and_reason_reach_the_client(code: int, reason: str) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async def act(proxy: ProxyProcess) -> tuple[int | None, str | None]:
        async with session(proxy) as socket:
            return (await until_closed(socket))[1:]

    assert run_against(speak, act) == (code, reason)


def test_the_client_s_code_and_reason_reach_the_provider() -> None:
    seen: list[tuple[int | None, str | None]] = []
    ended = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        await connection.wait_closed()
        seen.append((connection.close_code, connection.close_reason))
        ended.set()

    async def act(proxy: ProxyProcess) -> None:
        async with session(proxy) as socket:
            await socket.close(4001, "enough")
        await ended.wait()

    run_against(speak, act)

    assert seen == [(4001, "enough")]


def test_a_provider_that_drops_the_connection_leaves_an_estimate_and_a_broken_session() -> None:
    async def speak(connection: ServerConnection) -> None:
        await begin(connection, SOME)
        await asyncio.sleep(0.2)
        connection.transport.abort()

    async def act(proxy: ProxyProcess) -> tuple[int | None, dict[str, Any], list[str]]:
        async with session(proxy) as socket:
            await socket.send(ASK)
            code = (await until_closed(socket))[1]
        (record,) = await records(proxy, socket, 1)
        return code, record, await faults_of(proxy, record)

    code, record, faults = run_against(speak, act)

    assert code == 1011
    assert (record["outcome"], record["basis"]) == ("upstream_broken", "estimated")
    assert record["estimate_method"] == "realtime_deltas"
    assert faults[0] == "the connection to the provider broke"
    # 6,400 characters of audio, and the event around them, are three tokens of 50 ms at 64 USD per million.
    assert Decimal(record["subtotal"]) == Decimal("0.000192")


def test_an_upgrade_with_the_answer_to_another_key_is_refused(tmp_path: Path) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"
        )
        await writer.drain()

    async def act(proxy: ProxyProcess) -> int:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with session(proxy):
                pass
        return refused.value.response.status_code

    assert raw_provider.run_against(upgrade, tmp_path, act) == 502


def test_a_client_that_drops_the_connection_pays_what_one_that_stays_pays() -> None:
    async def speak(connection: ServerConnection) -> None:
        await begin(connection)
        await asyncio.sleep(0.3)
        await connection.send(DONE)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        async with session(proxy) as socket:
            await socket.send(ASK)
            await next_event(socket, "response.created")
            socket.transport.abort()
        (record,) = await records(proxy, socket, 1)
        return record

    record = run_against(speak, act)

    assert (record["outcome"], record["basis"]) == ("completed", "reported")
    # 10 text tokens at 4 USD and 20 at 16 USD per million.
    assert Decimal(record["subtotal"]) == Decimal("0.00036")


def test_answers_of_clients_that_left_are_drained_in_number_and_time() -> None:
    async def speak(connection: ServerConnection) -> None:
        await begin(connection, SOME)
        await connection.wait_closed()

    async def leave(proxy: ProxyProcess) -> ClientConnection:
        async with session(proxy) as socket:
            await socket.send(ASK)
            await next_event(socket, "response.output_audio.delta")
        return socket

    async def act(proxy: ProxyProcess) -> list[tuple[dict[str, Any], list[str]]]:
        drained = await leave(proxy)
        assert await becomes_true(lambda: "llm_proxy_drains 1.0" in proxy.fetch_admin("/metrics")[1])
        (over,) = await records(proxy, await leave(proxy), 1)
        (late,) = await records(proxy, drained, 1)
        return [(over, await faults_of(proxy, over)), (late, await faults_of(proxy, late))]

    found = run_against(speak, act, streams={"drain_limit_s": 3, "drain_max": 1})

    of_number = "not drained: 1 answers are drained already (streams.drain_max)"
    of_time = "not drained to its end: that takes more than 3 s (streams.drain_limit_s)"
    assert [faults[0] for _, faults in found] == [of_number, of_time]
    assert {(one["outcome"], one["basis"], one["estimate_method"]) for one, _ in found} == {
        ("client_closed", "estimated", "realtime_deltas")
    }


def test_a_message_of_the_client_that_is_too_long_ends_the_session_with_1009_and_keeps_its_records() -> None:
    async def speak(connection: ServerConnection) -> None:
        await begin(connection, DONE)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> tuple[int | None, dict[str, Any]]:
        async with session(proxy) as socket:
            await socket.send(ASK)
            await next_event(socket, "response.done")
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (1 << 20)}))
            code = (await until_closed(socket))[1]
        (record,) = await records(proxy, socket, 1)
        return code, record

    code, record = run_against(speak, act, websockets={"max_message_mb": 1})

    assert code == 1009
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_a_project_that_a_reload_takes_away_loses_its_sessions_with_1008() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> tuple[int | None, str | None]:
        async with session(proxy) as socket:
            await next_event(socket, "session.created")
            path = proxy.folder / "proxy.yaml"
            config = yaml.safe_load(path.read_text())
            config["projects"] = [one for one in config["projects"] if one["id"] != PROJECT]
            path.write_text(yaml.safe_dump(config))
            proxy.signal(signal.SIGHUP)
            return (await until_closed(socket))[1:]

    code, reason = run_against(speak, act, websockets={"recheck_s": 0.2})

    assert code == 1008
    assert reason is not None
    assert reason.startswith("the credential no longer holds")


def test_pings_of_the_client_are_answered_while_the_provider_is_silent() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> None:
        async with session(proxy) as socket:
            await (await socket.ping())

    run_against(speak, act)


def test_a_client_that_does_not_read_holds_the_provider_back_and_gets_all_in_the_end() -> None:
    megabytes, sent = 64, 0
    message = DELTA % ("A" * (1 << 20))

    async def speak(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(megabytes):
            await connection.send(message)
            sent += 1
        await connection.close()

    async def act(proxy: ProxyProcess) -> tuple[int, int, int]:
        before = resident_kib(proxy)
        async with session(proxy) as socket:
            await asyncio.sleep(0.3)
            while True:  # until no more goes in
                had = sent
                await asyncio.sleep(0.3)
                if had == sent:
                    break
            held, grown = sent, resident_kib(proxy) - before
            came, _, _ = await until_closed(socket)
            assert all(one == message for one in came)
            return held, grown, len(came)

    held, grown, came = run_against(speak, act)

    assert held < megabytes
    assert grown < 24 * 1024
    assert came == megabytes


def test_a_provider_behind_tls_is_trusted_by_its_ca_file(tmp_path: Path) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        await connection.close(1000, "bye")

    async def run(trusted: str | None) -> tuple[int | None, int]:
        async with serve(speak, "127.0.0.1", 0, ssl=make_server_context()) as server:
            url = f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            provider = {"base_url": url, "api_key": {"env": "TEST_OPENAI_KEY"}}
            if trusted is not None:
                provider["ca_file"] = trusted
            async with async_proxy(url, providers={"openai": provider}) as proxy, asyncio.timeout(30):
                try:
                    async with session(proxy) as socket:
                        return (await until_closed(socket))[1], 101
                except websockets.InvalidStatus as refused:
                    return None, refused.response.status_code

    assert asyncio.run(run(write_ca_file(tmp_path))) == (1000, 101)
    assert asyncio.run(run(None)) == (None, 502)


def test_sessions_that_end_in_every_way_leave_none_in_flight() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        async for message in connection:
            if message == ASK:
                await connection.send(BEGUN)
            else:
                connection.transport.abort()

    async def leave(proxy: ProxyProcess, number: int) -> None:
        async with session(proxy) as socket:
            if number % 2:
                await next_event(socket, "session.created")
            if number % 3 == 0:
                await socket.send(ASK)
            if number % 5 == 0:
                await socket.send('{"type":"input_audio_buffer.commit"}')
            if number % 7 < 3:
                socket.transport.abort()

    async def act(proxy: ProxyProcess) -> bool:
        await asyncio.gather(*(leave(proxy, number) for number in range(60)), return_exceptions=True)
        return await becomes_true(lambda: "llm_proxy_requests_in_flight 0.0" in proxy.fetch_admin("/metrics")[1])

    assert run_against(speak, act, streams={"on_client_disconnect": "cancel"})
