"""The WebSocket to a provider: order, pressure, what leaves together, and every way in which it may not come about."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.upstream.authority import make_server_context, write_ca_file
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.errors import UpgradeRejected, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.websocket.connection import Closed, UpstreamWebSocket, WebSocketRequest, connect
from tornado_proxy.upstream.websocket.frame_sender import Wait

Speak = Callable[[ServerConnection], Awaitable[None]]

#: `tcpi_data_segs_out` of linux/tcp.h's struct tcp_info.
_DATA_SEGMENTS_OUT = slice(156, 160)


@contextlib.asynccontextmanager
async def speaker(speak: Speak, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A provider that does `speak` with each connection; gives its base URL."""

    async def quietly(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await speak(connection)

    async with serve(quietly, "127.0.0.1", 0, ssl=context, max_size=None, compression=None) as server:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def opened(url: str, *, most: int = 1 << 20, timeout_s: float = 5.0, ca: str | None = None) -> UpstreamWebSocket:
    key = (("Authorization", Secret("Bearer provider-key")),)
    return await connect(
        WebSocketRequest(url + "/v1/realtime", (("X-One", "1"),), key, ("realtime",), most, timeout_s, ca)
    )


async def until_closed(upstream: UpstreamWebSocket) -> tuple[list[str | bytes], Closed]:
    """All messages, and how it closed."""
    came: list[str | bytes] = []
    closed = await asyncio.wait_for(upstream.listen(came.append), 20)
    upstream.close()
    return came, closed


async def wait_close(connection: ServerConnection) -> None:
    await connection.wait_closed()


@pytest.mark.gen_test(timeout=30)
async def test_messages_come_in_order_from_the_first_that_came_before_anybody_listened() -> None:
    async def speak(connection: ServerConnection) -> None:
        for number in range(200):
            await connection.send(f"{number}" if number % 3 else number.to_bytes(2, "big"))
        await connection.send(["a fragmented ", "message", ""])
        await connection.close(1000, "that was all")

    async with speaker(speak) as url:
        upstream = await opened(url)
        await asyncio.sleep(0.1)  # some wait in Tornado's queue, the others behind them
        came, closed = await until_closed(upstream)

    assert came[:-1] == [f"{number}" if number % 3 else number.to_bytes(2, "big") for number in range(200)]
    assert came[-1] == "a fragmented message"
    assert closed == Closed(1000, "that was all")


@pytest.mark.gen_test(timeout=30)
async def test_the_next_message_is_handled_when_the_one_before_has_been() -> None:
    async def speak(connection: ServerConnection) -> None:
        for number in range(20):
            await connection.send(str(number))
        await connection.close()

    under_way, handled = 0, []

    async def handle_slowly(message: str | bytes) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0.005)
        handled.append(message)
        under_way -= 1

    def handle(message: str | bytes) -> Wait | None:
        if int(message) % 2:
            return handle_slowly(message)
        handled.append(message)
        return None

    async with speaker(speak) as url:
        upstream = await opened(url)
        await asyncio.wait_for(upstream.listen(handle), 20)
        upstream.close()

    assert handled == [str(number) for number in range(20)]
    assert under_way == 0


@pytest.mark.gen_test(timeout=30)
async def test_one_that_does_not_handle_its_messages_holds_the_provider_back() -> None:
    sent = 0

    async def speak(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(640):
            await connection.send(bytes(100_000))
            sent += 1

    go_on = asyncio.Event()
    sizes: list[int] = []

    async def handle(message: str | bytes) -> None:
        sizes.append(len(message))
        await go_on.wait()

    async with speaker(speak) as url:
        upstream = await opened(url)
        listening = asyncio.ensure_future(upstream.listen(handle))
        before = -1
        while before != sent:  # until no more goes in
            before = sent
            await asyncio.sleep(0.2)
        held = sent
        go_on.set()
        await asyncio.wait_for(listening, 20)
        upstream.close()

    assert held < 320, "64 MB went somewhere"
    assert sizes == [100_000] * 640


@pytest.mark.gen_test(timeout=30)
async def test_what_is_sent_arrives_in_order_and_in_its_kind() -> None:
    came: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def speak(connection: ServerConnection) -> None:
        async for message in connection:
            came.put_nowait(message)

    messages: list[str | bytes] = ["", b"", "ünï", b"\x00\xff", "x" * 126, b"y" * 65_536, "z" * 2_000_000, "last"]

    async with speaker(speak) as url:
        upstream = await opened(url)
        listening = asyncio.ensure_future(upstream.listen(lambda message: None))
        for message in messages:
            waiting = upstream.send(message)
            if waiting is not None:
                await waiting
        arrived = [await asyncio.wait_for(came.get(), 10) for _ in messages]
        upstream.close()
        await listening

    assert arrived == messages


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux gathers segments")
@pytest.mark.gen_test(timeout=30)
async def test_messages_of_one_turn_leave_in_two_segments_and_wait_for_nothing_after_it() -> None:
    came: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def speak(connection: ServerConnection) -> None:
        async for message in connection:
            came.put_nowait(message)

    def segments_out(connection: socket.socket) -> int:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack("=I", info[_DATA_SEGMENTS_OUT])[0])

    async with speaker(speak) as url:
        upstream = await opened(url)
        protocol = upstream._connection.protocol
        assert protocol is not None
        assert protocol.stream is not None
        raw = protocol.stream.socket
        before = segments_out(raw)
        for number in range(50):
            assert upstream.send(str(number)) is None
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0
        assert segments_out(raw) - before == 2
        assert [await asyncio.wait_for(came.get(), 10) for _ in range(50)] == [str(number) for number in range(50)]
        upstream.close()


@pytest.mark.gen_test(timeout=30)
async def test_nothing_is_sent_on_a_connection_that_is_closing_and_all_waits_end() -> None:
    async with speaker(wait_close) as url:
        upstream = await opened(url)
        upstream.close(4001, "enough")
        with pytest.raises(UpstreamError, match="closed"):
            upstream.send("late")
        closed = await asyncio.wait_for(upstream.listen(lambda message: None), 10)

    assert closed == Closed(4001, "enough")


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (1000, "", Closed(1000, "")),
        (1001, "bye", Closed(1001, "bye")),
        (3000, "r" * 123, Closed(3000, "r" * 123)),
        (4999, "ünï", Closed(4999, "ünï")),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_the_provider_s_code_and_reason_are_kept(code: int, reason: str, seen: Closed) -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async with speaker(speak) as url:
        assert (await until_closed(await opened(url)))[1] == seen


@pytest.mark.gen_test(timeout=30)
async def test_a_close_without_a_code_says_nothing_and_counts_as_broken() -> None:
    async def speak(connection: ServerConnection) -> None:
        connection.transport.write(b"\x88\x00")
        await connection.wait_closed()

    async with speaker(speak) as url:
        closed = (await until_closed(await opened(url)))[1]

    assert closed == Closed(1011, "the connection to the provider broke", broken=True)


@pytest.mark.gen_test(timeout=30)
async def test_a_connection_that_drops_is_broken_after_its_messages() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send("one")
        await connection.send("two")
        connection.transport.abort()

    async with speaker(speak) as url:
        came, closed = await until_closed(await opened(url))

    assert came == ["one", "two"][: len(came)]
    assert closed == Closed(1011, "the connection to the provider broke", broken=True)


@pytest.mark.gen_test(timeout=30)
async def test_a_message_that_is_too_long_breaks_the_connection_and_is_not_passed_on() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send("short")
        await connection.send("x" * 2001)
        await connection.wait_closed()

    async with speaker(speak) as url:
        came, closed = await until_closed(await opened(url, most=2000))

    assert came == ["short"]
    assert closed.broken


@pytest.mark.gen_test(timeout=30)
async def test_pings_of_the_provider_are_answered_while_a_message_is_handled() -> None:
    answered = asyncio.Event()

    async def speak(connection: ServerConnection) -> None:
        await (await connection.ping())
        answered.set()
        await connection.close()

    async with speaker(speak) as url:
        await until_closed(await opened(url))

    assert answered.is_set()


@pytest.mark.gen_test(timeout=30)
async def test_the_key_and_the_subprotocols_are_offered_and_the_choice_is_known() -> None:
    seen: list[Request] = []

    def look(connection: ServerConnection, request: Request) -> None:
        seen.append(request)

    async with serve(wait_close, "127.0.0.1", 0, process_request=look, subprotocols=["realtime"]) as server:  # type: ignore[list-item]
        upstream = await opened(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        assert upstream.subprotocol == "realtime"
        upstream.close()

    assert seen[0].path == "/v1/realtime"
    assert seen[0].headers["Authorization"] == "Bearer provider-key"
    assert seen[0].headers["X-One"] == "1"
    assert "Sec-WebSocket-Extensions" not in seen[0].headers


@pytest.mark.parametrize("status", [401, 403, 429, 500])
@pytest.mark.gen_test(timeout=30)
async def test_a_refusal_keeps_the_provider_s_status_and_words(status: int) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), '{"error":{"message":"no"}}')

    async with serve(wait_close, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(UpgradeRejected) as refused:
            await opened(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")

    assert refused.value.response_status == status
    assert refused.value.body == b'{"error":{"message":"no"}}'


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="no upgrade"),
        pytest.param(b"this is no HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_an_upgrade_that_does_not_come_about_is_an_upstream_error(said: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    async with run_provider(answer) as url:
        with pytest.raises((UpstreamUnreachable, UpgradeRejected)):
            await asyncio.wait_for(opened(url), 10)


@pytest.mark.gen_test(timeout=30)
async def test_an_upgrade_that_is_never_answered_ends_by_the_connect_time_out() -> None:
    async def stay_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with run_provider(stay_silent) as url:
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(opened(url, timeout_s=0.3), 10)


@pytest.mark.gen_test(timeout=30)
async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UpstreamUnreachable):
            await opened(f"http://127.0.0.1:{free.getsockname()[1]}")


@pytest.mark.gen_test(timeout=30)
async def test_tls_is_trusted_by_ca_file_alone(tmp_path: Path) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.close()

    async with speaker(greet, make_server_context()) as url:
        came, closed = await until_closed(await opened(url, ca=write_ca_file(tmp_path)))
        assert (came, closed) == (["hello"], Closed(1000, ""))
        for untrusted in (None, write_ca_file(tmp_path, authority=trustme.CA())):
            with pytest.raises(UpstreamUnreachable, match=r"(?i)certificate"):
                await opened(url, ca=untrusted)
