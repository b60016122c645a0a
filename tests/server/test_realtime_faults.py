"""Realtime sessions whose provider or client breaks off, floods, stalls or loses its permission."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from tests.harness import OPENAI_KEY, PROJECT, TIMEOUT_S, ProxyProcess, mint
from tests.server import raw_provider
from tests.server.realtime import (
    connect_session,
    fetch_rejection,
    next_event,
    read_session,
    wait_closed,
    websocket_url,
)
from tests.server.websocket_provider import ScriptedSessions, run_against, scripted_sessions, url_of
from tests.stress.async_proxy import async_proxy, becomes_true
from tests.stress.process_stats import resident_kib
from tests.upstream.authority import make_server_context, write_ca_file

CREATED = '{"type":"session.created","session":{"type":"realtime","model":"gpt-realtime"}}'
STARTED = '{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}'
AUDIO_DELTA = '{"type":"response.output_audio.delta","response_id":"resp_1","delta":"%s"}'
SHORT_DELTA = AUDIO_DELTA % ("A" * 6400)
DONE = (
    '{"type":"response.done","response":{"id":"resp_1","status":"completed","usage":{"total_tokens":30,'
    '"input_tokens":10,"output_tokens":20,"input_token_details":{"text_tokens":10,"audio_tokens":0,"cached_tokens":0},'
    '"output_token_details":{"text_tokens":20,"audio_tokens":0}}}}'
)
CREATE_RESPONSE = '{"type":"response.create"}'


@pytest.fixture(scope="module")
def sessions() -> Iterator[ScriptedSessions]:
    with scripted_sessions() as running:
        yield running


async def start_response(connection: ServerConnection, *events: str) -> None:
    """Act as the provider up to the middle of a session's first response."""
    await connection.send(CREATED)
    await connection.recv()
    for event in (STARTED, *events):
        await connection.send(event)


async def read_records(proxy: ProxyProcess, socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    return await asyncio.to_thread(read_session, proxy, socket, count)


async def logged_faults(proxy: ProxyProcess, record: dict[str, Any]) -> list[str]:
    """Return the faults in the log line of a record."""
    faults: list[str] = json.loads(await asyncio.to_thread(proxy.wait_for_log, record["request_id"]))["faults"]
    return faults


async def receive_all(socket: ClientConnection) -> list[str | bytes]:
    """Return all messages until the session is closed."""
    messages = []
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            messages.append(await socket.recv())
    await socket.wait_closed()
    return messages


def test_frames_are_relayed_unchanged_in_both_directions(sessions: ScriptedSessions) -> None:
    received: list[str | bytes] = []
    from_client: list[str | bytes] = [
        '{"type":"input_audio_buffer.append", "audio":"ünï"}',
        b'{"type":"input_audio_buffer.clear"}',
    ]
    from_provider: list[str | bytes] = [
        CREATED,
        b"\x00\xff binary",
        '{"type":"unheard.of","é":1}  ',
        "no JSON at all",
        "",
    ]

    async def speak(connection: ServerConnection) -> None:
        for message in from_provider:
            await connection.send(message)
        for _ in from_client:
            received.append(await connection.recv())
        await connection.close()

    async def act(proxy: ProxyProcess) -> list[str | bytes]:
        async with connect_session(proxy) as socket:
            for message in from_client:
                await socket.send(message)
            return await receive_all(socket)

    assert sessions.run(speak, act) == from_provider
    assert received == from_client


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "later"), (4999, "ünï")])
def test_provider_s_close_code_and_reason_reach_the_client(code: int, reason: str, sessions: ScriptedSessions) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async def act(proxy: ProxyProcess) -> tuple[int | None, str | None]:
        async with connect_session(proxy) as socket:
            return await wait_closed(socket)

    assert sessions.run(speak, act) == (code, reason)


def test_key_in_a_close_reason_or_a_frame_is_masked(sessions: ScriptedSessions) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(rf'{{"type":"note","text":"sk\u002dprovider-openai-7Qx1vB9mZ3 {OPENAI_KEY}"}}')
        await connection.close(4000, f"bad key {OPENAI_KEY}")

    async def act(proxy: ProxyProcess) -> tuple[str | bytes, str | None]:
        async with connect_session(proxy) as socket:
            return await socket.recv(), (await wait_closed(socket))[1]

    frame, reason = sessions.run(speak, act)

    assert frame == '{"type":"note","text":"' + "*" * 34 + " " + "*" * 29 + '"}'
    assert reason == "bad key " + "*" * 29


def test_client_s_close_code_and_reason_reach_the_provider(sessions: ScriptedSessions) -> None:
    closed: list[tuple[int | None, str | None]] = []
    ended = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.append((connection.close_code, connection.close_reason))
        ended.set()

    async def act(proxy: ProxyProcess) -> None:
        async with connect_session(proxy) as socket:
            await socket.close(4001, "enough")
        await ended.wait()

    sessions.run(speak, act)

    assert closed == [(4001, "enough")]


def test_provider_that_drops_the_connection_leaves_an_estimate_and_a_broken_session(
    sessions: ScriptedSessions,
) -> None:
    relayed = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        await start_response(connection, SHORT_DELTA)
        await relayed.wait()
        connection.transport.abort()

    async def act(proxy: ProxyProcess) -> tuple[int | None, dict[str, Any], list[str]]:
        async with connect_session(proxy) as socket:
            await socket.send(CREATE_RESPONSE)
            await next_event(socket, "response.output_audio.delta")
            relayed.set()
            code, _ = await wait_closed(socket)
        (record,) = await read_records(proxy, socket, 1)
        return code, record, await logged_faults(proxy, record)

    code, record, faults = sessions.run(speak, act)

    assert code == 1011
    assert (record["outcome"], record["basis"]) == ("upstream_broken", "estimated")
    assert record["estimate_method"] == "realtime_deltas"
    assert faults[0] == "the connection to the provider broke"
    # 6,400 characters of audio, and the event around them, are three tokens of 50 ms at 64 USD per million.
    assert Decimal(record["subtotal"]) == Decimal("0.000192")


def test_upgrade_with_a_wrong_accept_key_is_rejected(tmp_path: Path) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"
        )
        await writer.drain()

    async def act(proxy: ProxyProcess) -> int:
        headers = {"Authorization": f"Bearer {mint()}"}
        return (await fetch_rejection(websocket_url(proxy), additional_headers=headers)).status_code

    assert raw_provider.run_against(upgrade, tmp_path, act) == 502


def test_client_that_drops_the_connection_pays_for_the_response_in_progress(sessions: ScriptedSessions) -> None:
    dropped = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        await start_response(connection)
        await dropped.wait()
        await asyncio.sleep(0.3)  # the proxy detects the drop; the response must be drained nevertheless
        await connection.send(DONE)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        async with connect_session(proxy) as socket:
            await socket.send(CREATE_RESPONSE)
            await next_event(socket, "response.created")
            socket.transport.abort()
        dropped.set()
        (record,) = await read_records(proxy, socket, 1)
        return record

    record = sessions.run(speak, act)

    assert (record["outcome"], record["basis"]) == ("completed", "reported")
    # 10 text tokens at 4 USD and 20 at 16 USD per million.
    assert Decimal(record["subtotal"]) == Decimal("0.00036")


def test_drains_of_disconnected_clients_are_limited_in_number_and_time() -> None:
    async def speak(connection: ServerConnection) -> None:
        await start_response(connection, SHORT_DELTA)
        await connection.wait_closed()

    async def disconnect(proxy: ProxyProcess) -> ClientConnection:
        async with connect_session(proxy) as socket:
            await socket.send(CREATE_RESPONSE)
            await next_event(socket, "response.output_audio.delta")
        return socket

    async def act(proxy: ProxyProcess) -> list[tuple[dict[str, Any], list[str]]]:
        drained = await disconnect(proxy)
        assert await becomes_true(lambda: "llm_proxy_drains 1.0" in proxy.fetch_admin("/metrics")[1])
        (not_drained,) = await read_records(proxy, await disconnect(proxy), 1)
        (timed_out,) = await read_records(proxy, drained, 1)
        return [(record, await logged_faults(proxy, record)) for record in (not_drained, timed_out)]

    # The second client has to connect and disconnect within the time limit, also on a busy machine.
    found = run_against(speak, act, streams={"drain_limit_s": 3, "drain_max": 1})

    at_maximum = "not drained: 1 responses are being drained already (streams.drain_max)"
    at_time_limit = "not drained to its end: took more than 3 s (streams.drain_limit_s)"
    assert [faults[0] for _, faults in found] == [at_maximum, at_time_limit]
    assert {(record["outcome"], record["basis"], record["estimate_method"]) for record, _ in found} == {
        ("client_closed", "estimated", "realtime_deltas")
    }


def test_client_message_over_the_limit_closes_with_1009_and_keeps_the_records() -> None:
    async def speak(connection: ServerConnection) -> None:
        await start_response(connection, DONE)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> tuple[int | None, dict[str, Any]]:
        async with connect_session(proxy) as socket:
            await socket.send(CREATE_RESPONSE)
            await next_event(socket, "response.done")
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (1 << 20)}))
            code, _ = await wait_closed(socket)
        (record,) = await read_records(proxy, socket, 1)
        return code, record

    code, record = run_against(speak, act, websockets={"max_message_mb": 1})

    assert code == 1009
    assert (record["outcome"], record["basis"]) == ("completed", "reported")


def test_sessions_of_a_project_that_a_reload_removes_are_closed_with_1008() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> tuple[int | None, str | None]:
        async with connect_session(proxy) as socket:
            await next_event(socket, "session.created")
            path = proxy.folder / "proxy.yaml"
            config = yaml.safe_load(path.read_text())
            config["projects"] = [project for project in config["projects"] if project["id"] != PROJECT]
            path.write_text(yaml.safe_dump(config))
            proxy.signal(signal.SIGHUP)
            return await wait_closed(socket)

    code, reason = run_against(speak, act, websockets={"recheck_s": 0.2})

    assert code == 1008
    assert reason is not None
    assert reason.startswith("the credential is no longer valid")


def test_client_s_pings_are_answered_while_the_provider_is_silent(sessions: ScriptedSessions) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def act(proxy: ProxyProcess) -> None:
        async with connect_session(proxy) as socket:
            await (await socket.ping())

    sessions.run(speak, act)


def test_client_that_does_not_read_slows_the_provider_and_receives_everything(sessions: ScriptedSessions) -> None:
    megabytes, sent = 64, 0
    message = AUDIO_DELTA % ("A" * (1 << 20))

    async def speak(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(megabytes):
            await connection.send(message)
            sent += 1
        await connection.close()

    async def act(proxy: ProxyProcess) -> tuple[int, int, int]:
        before = resident_kib(proxy)
        async with connect_session(proxy, max_queue=1) as socket:
            await asyncio.sleep(0.3)
            while True:  # until the buffers are full and the provider's count stays the same
                sent_before = sent
                await asyncio.sleep(0.3)
                if sent_before == sent:
                    break
            held, growth = sent, resident_kib(proxy) - before
            messages = await receive_all(socket)
            assert all(received == message for received in messages)
            return held, growth, len(messages)

    held, growth, received = sessions.run(speak, act)

    # The kernel buffers some megabytes on both connections; the proxy buffers little.
    assert held < megabytes
    assert growth < 24 * 1024
    assert received == megabytes


def test_provider_s_tls_certificate_is_trusted_by_its_ca_file_only(tmp_path: Path) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        await connection.close(1000, "bye")

    async def run(trusted: str | None) -> tuple[int | None, int]:
        async with serve(speak, "127.0.0.1", 0, ssl=make_server_context()) as server:
            url = url_of(server, "https")
            provider = {"base_url": url, "api_key": {"env": "TEST_OPENAI_KEY"}}
            if trusted is not None:
                provider["ca_file"] = trusted
            async with async_proxy(url, providers={"openai": provider}) as proxy, asyncio.timeout(TIMEOUT_S):
                try:
                    async with connect_session(proxy) as socket:
                        return (await wait_closed(socket))[0], 101
                except websockets.InvalidStatus as rejection:
                    return None, rejection.response.status_code

    assert asyncio.run(run(write_ca_file(tmp_path))) == (1000, 101)
    assert asyncio.run(run(None)) == (None, 502)


def test_sessions_that_end_in_every_way_leave_none_in_flight() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        async for message in connection:
            if message == CREATE_RESPONSE:
                await connection.send(STARTED)
            else:
                connection.transport.abort()

    async def end(proxy: ProxyProcess, number: int) -> None:
        async with connect_session(proxy) as socket:
            if number % 2:
                await next_event(socket, "session.created")
            if number % 3 == 0:
                await socket.send(CREATE_RESPONSE)
            if number % 5 == 0:
                await socket.send('{"type":"input_audio_buffer.commit"}')
            if number % 7 < 3:
                socket.transport.abort()

    async def act(proxy: ProxyProcess) -> bool:
        await asyncio.gather(*(end(proxy, number) for number in range(60)), return_exceptions=True)
        return await becomes_true(lambda: "llm_proxy_requests_in_flight 0.0" in proxy.fetch_admin("/metrics")[1])

    assert run_against(speak, act, streams={"on_client_disconnect": "cancel"})


@pytest.mark.parametrize("frame", [b"\x00\xff audio", b"[1, 2]"], ids=["no JSON", "no JSON object"])
def test_client_s_binary_frame_that_is_no_event_gets_an_error_event_and_goes_nowhere(
    frame: bytes, sessions: ScriptedSessions
) -> None:
    received: list[str | bytes] = []

    async def speak(connection: ServerConnection) -> None:
        await connection.send(CREATED)
        received.append(await connection.recv())

    async def act(proxy: ProxyProcess) -> dict[str, Any]:
        async with connect_session(proxy) as socket:
            await next_event(socket, "session.created")
            await socket.send(frame)
            error = await next_event(socket, "error")
            await socket.send(b'{"type":"input_audio_buffer.clear"}')
            await wait_closed(socket)
            return error

    error = sessions.run(speak, act)

    assert error["error"]["code"] == "invalid_body"
    assert received == [b'{"type":"input_audio_buffer.clear"}']
