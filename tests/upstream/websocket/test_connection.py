"""WebSockets to a provider: order, back-pressure, batching of messages, close codes, and failed upgrades."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme
import uvloop
from httptools import HttpResponseParser
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.upstream.authority import make_server_context, write_ca_file
from tests.upstream.tcp_provider import run_provider
from tornado_proxy.domain.errors import UpgradeRejected, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.upstream.websocket.connection import Closed, UpstreamWebSocket, WebSocketRequest, connect
from tornado_proxy.upstream.websocket.message_protocol import Wait
from tornado_proxy.upstream.websocket.upgrade import UpgradeReader, UpgradeResponse

Serve = Callable[[ServerConnection], Awaitable[None]]

#: `tcpi_data_segs_out` of linux/tcp.h's struct tcp_info.
_DATA_SEGMENTS_OUT = slice(156, 160)


@contextlib.asynccontextmanager
async def run_websocket_provider(serve_connection: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Call `serve_connection` with each connection; yield the base URL."""

    async def serve_until_closed(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await serve_connection(connection)

    async with serve(serve_until_closed, "127.0.0.1", 0, ssl=context, max_size=None, compression=None) as server:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def open_websocket(
    url: str, *, max_message_bytes: int = 1 << 20, timeout_s: float = 5.0, ca: str | None = None
) -> UpstreamWebSocket:
    """Open a WebSocket that offers the subprotocol `realtime` and sends a header and a provider key."""
    key_headers = (("Authorization", Secret("Bearer provider-key")),)
    return await connect(
        WebSocketRequest(
            url + "/v1/realtime", (("X-One", "1"),), key_headers, ("realtime",), max_message_bytes, timeout_s, ca
        )
    )


async def receive_all(upstream: UpstreamWebSocket) -> tuple[list[str | bytes], Closed]:
    """Receive until the connection closes; return the messages and how it closed."""
    messages: list[str | bytes] = []
    closed = await asyncio.wait_for(upstream.listen(messages.append), 20)
    upstream.close()
    return messages, closed


async def wait_close(connection: ServerConnection) -> None:
    await connection.wait_closed()


@pytest.mark.gen_test(timeout=30)
async def test_messages_arrive_in_order_including_those_sent_before_listen() -> None:
    async def respond(connection: ServerConnection) -> None:
        for number in range(200):
            await connection.send(f"{number}" if number % 3 else number.to_bytes(2, "big"))
        await connection.send(["a fragmented ", "message", ""])
        await connection.close(1000, "all messages sent")

    async with run_websocket_provider(respond) as url:
        upstream = await open_websocket(url)
        await asyncio.sleep(0.1)  # some messages have been read, the others wait in the socket
        messages, closed = await receive_all(upstream)

    assert messages[:-1] == [f"{number}" if number % 3 else number.to_bytes(2, "big") for number in range(200)]
    assert messages[-1] == "a fragmented message"
    assert closed == Closed(1000, "all messages sent")


@pytest.mark.gen_test(timeout=30)
async def test_next_message_is_handled_only_after_the_previous_one() -> None:
    async def respond(connection: ServerConnection) -> None:
        for number in range(20):
            await connection.send(str(number))
        await connection.close()

    running, handled = 0, []

    async def handle_slowly(message: str | bytes) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.005)
        handled.append(message)
        running -= 1

    def handle(message: str | bytes) -> Wait | None:
        if int(message) % 2:
            return handle_slowly(message)
        handled.append(message)
        return None

    async with run_websocket_provider(respond) as url:
        upstream = await open_websocket(url)
        await asyncio.wait_for(upstream.listen(handle), 20)
        upstream.close()

    assert handled == [str(number) for number in range(20)]
    assert running == 0


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.gen_test(timeout=30)
async def test_unhandled_messages_hold_the_provider_back(secure: bool, tmp_path: Path) -> None:
    sent = 0

    async def respond(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(640):
            await connection.send(bytes(100_000))
            sent += 1

    release = asyncio.Event()
    sizes: list[int] = []

    async def handle(message: str | bytes) -> None:
        sizes.append(len(message))
        await release.wait()

    context, ca = (make_server_context(), write_ca_file(tmp_path)) if secure else (None, None)
    async with run_websocket_provider(respond, context) as url:
        upstream = await open_websocket(url, ca=ca)
        listening = asyncio.ensure_future(upstream.listen(handle))
        previously_sent = -1
        while previously_sent != sent:  # until the provider is held back
            previously_sent = sent
            await asyncio.sleep(0.2)
        sent_while_held = sent
        release.set()
        await asyncio.wait_for(listening, 20)
        upstream.close()

    assert sent_while_held < 320, "the provider sent 64 MB to a stalled handler"
    assert sizes == [100_000] * 640


@pytest.mark.gen_test(timeout=30)
async def test_sent_messages_arrive_in_order_as_text_or_binary() -> None:
    received: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def respond(connection: ServerConnection) -> None:
        async for message in connection:
            received.put_nowait(message)

    # 126 and 65,536 bytes are the shortest payloads with two and eight bytes of length (RFC 6455 section 5.2).
    messages: list[str | bytes] = ["", b"", "ünï", b"\x00\xff", "x" * 126, b"y" * 65_536, "z" * 2_000_000, "last"]

    async with run_websocket_provider(respond) as url:
        upstream = await open_websocket(url)
        listening = asyncio.ensure_future(upstream.listen(lambda message: None))
        for message in messages:
            wait = upstream.send(message)
            if wait is not None:
                await wait
        arrived = [await asyncio.wait_for(received.get(), 10) for _ in messages]
        upstream.close()
        await listening

    assert arrived == messages


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux has TCP_CORK")
@pytest.mark.gen_test(timeout=30)
async def test_messages_of_one_turn_are_sent_in_two_segments_without_further_delay() -> None:
    received: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def respond(connection: ServerConnection) -> None:
        async for message in connection:
            received.put_nowait(message)

    def count_segments_sent(connection: socket.socket) -> int:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack("=I", info[_DATA_SEGMENTS_OUT])[0])

    async with run_websocket_provider(respond) as url:
        upstream = await open_websocket(url)
        assert upstream._transport is not None
        raw = upstream._transport.get_extra_info("socket")
        before = count_segments_sent(raw)
        for number in range(50):
            assert upstream.send(str(number)) is None
        # The sender's callback runs on the next turn of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0
        assert count_segments_sent(raw) - before == 2
        assert [await asyncio.wait_for(received.get(), 10) for _ in range(50)] == [str(number) for number in range(50)]
        upstream.close()


@pytest.mark.gen_test(timeout=30)
async def test_send_raises_and_listen_returns_on_a_closing_connection() -> None:
    async with run_websocket_provider(wait_close) as url:
        upstream = await open_websocket(url)
        upstream.close(4001, "enough")
        with pytest.raises(UpstreamError, match="closed"):
            upstream.send("late")
        closed = await asyncio.wait_for(upstream.listen(lambda message: None), 10)

    assert closed == Closed(4001, "enough")


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (1000, "", Closed(1000, "")),
        (1001, "bye", Closed(1001, "bye")),
        (3000, "r" * 123, Closed(3000, "r" * 123)),
        (4999, "ünï", Closed(4999, "ünï")),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_close_code_and_reason_of_the_provider_are_reported(code: int, reason: str, expected: Closed) -> None:
    async def respond(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async with run_websocket_provider(respond) as url:
        assert (await receive_all(await open_websocket(url)))[1] == expected


@pytest.mark.gen_test(timeout=30)
async def test_close_without_a_code_counts_as_broken() -> None:
    async def respond(connection: ServerConnection) -> None:
        connection.transport.write(b"\x88\x00")  # a close frame without a payload
        await connection.wait_closed()

    async with run_websocket_provider(respond) as url:
        closed = (await receive_all(await open_websocket(url)))[1]

    assert closed == Closed(1011, "the connection to the provider broke", broken=True)


@pytest.mark.gen_test(timeout=30)
async def test_lost_connection_is_broken_after_its_messages() -> None:
    async def respond(connection: ServerConnection) -> None:
        await connection.send("one")
        await connection.send("two")
        connection.transport.abort()

    async with run_websocket_provider(respond) as url:
        messages, closed = await receive_all(await open_websocket(url))

    # abort() may discard messages that the socket has not sent yet.
    assert messages == ["one", "two"][: len(messages)]
    assert closed == Closed(1011, "the connection to the provider broke", broken=True)


@pytest.mark.gen_test(timeout=30)
async def test_too_long_message_breaks_the_connection_and_is_dropped() -> None:
    async def respond(connection: ServerConnection) -> None:
        await connection.send("short")
        await connection.send("x" * 2001)
        await connection.wait_closed()

    async with run_websocket_provider(respond) as url:
        messages, closed = await receive_all(await open_websocket(url, max_message_bytes=2000))

    assert messages == ["short"]
    assert closed.broken


@pytest.mark.parametrize("sent", [b"\xc1\x00", b"\x83\x00", b"\x81\x80\0\0\0\0", b"\x88\x01a"])
@pytest.mark.gen_test(timeout=30)
async def test_faulty_frame_breaks_the_connection_after_its_messages(sent: bytes) -> None:
    codes: list[int | None] = []

    async def respond(connection: ServerConnection) -> None:
        await connection.send("before")
        connection.transport.write(sent)
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with run_websocket_provider(respond) as url:
        messages, closed = await receive_all(await open_websocket(url))

    assert messages == ["before"]
    assert closed == Closed(1011, "the connection to the provider broke", broken=True)
    assert codes == [1002]


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        pytest.param(b"\x81\x01a" * 10_000, 10_000, id="messages"),
        pytest.param(b"\x81\x01a\x01\x00" + b"\x00\x00" * 10_000 + b"\x80\x01a", 2, id="parts"),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_many_messages_of_one_read_leave_turns_to_others(sent: bytes, messages: int) -> None:
    async def respond(connection: ServerConnection) -> None:
        connection.transport.write(sent)
        await connection.close()

    handled, turns = 0, 0

    def handle(message: str | bytes) -> None:
        nonlocal handled
        handled += 1

    async def count_turns() -> None:
        nonlocal turns
        while handled < messages:
            if handled:
                turns += 1
            await asyncio.sleep(0)

    async with run_websocket_provider(respond) as url:
        upstream = await open_websocket(url)
        counting = asyncio.create_task(count_turns())
        await asyncio.wait_for(upstream.listen(handle), 20)
        await counting
        upstream.close()

    assert handled == messages
    assert turns >= 100


@pytest.mark.gen_test
async def test_open_connection_holds_nothing_of_its_handshake() -> None:
    def count_parts() -> int:
        gc.collect()
        parts = HttpResponseParser | UpgradeReader | UpgradeResponse | WebSocketRequest
        return sum(isinstance(value, parts) for value in gc.get_objects())

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    received: asyncio.Queue[str | bytes] = asyncio.Queue()
    before = count_parts()
    async with run_websocket_provider(echo) as url:
        upstream = await open_websocket(url)
        listening = asyncio.ensure_future(upstream.listen(received.put_nowait))
        upstream.send("one")

        assert await asyncio.wait_for(received.get(), 5) == "one"
        assert count_parts() == before
        upstream.close()
        assert (await listening).broken is False


@pytest.mark.gen_test(timeout=30)
async def test_pings_of_the_provider_get_a_pong() -> None:
    pong_received = asyncio.Event()

    async def respond(connection: ServerConnection) -> None:
        await (await connection.ping())
        pong_received.set()
        await connection.close()

    async with run_websocket_provider(respond) as url:
        await receive_all(await open_websocket(url))

    assert pong_received.is_set()


@pytest.mark.gen_test(timeout=30)
async def test_upgrade_sends_the_key_and_subprotocols_and_reports_the_selected_one() -> None:
    requests: list[Request] = []

    def record_request(connection: ServerConnection, request: Request) -> None:
        requests.append(request)

    async with serve(wait_close, "127.0.0.1", 0, process_request=record_request, subprotocols=["realtime"]) as server:  # type: ignore[list-item]
        upstream = await open_websocket(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        assert upstream.subprotocol == "realtime"
        upstream.close()

    assert requests[0].path == "/v1/realtime"
    assert requests[0].headers["Authorization"] == "Bearer provider-key"
    assert requests[0].headers["X-One"] == "1"
    # No permessage-deflate: the proxy relays and meters uncompressed messages.
    assert "Sec-WebSocket-Extensions" not in requests[0].headers


@pytest.mark.parametrize("status", [401, 403, 429, 500])
@pytest.mark.gen_test(timeout=30)
async def test_rejected_upgrade_reports_status_and_body_of_the_provider(status: int) -> None:
    def reject(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), '{"error":{"message":"no"}}')

    async with serve(wait_close, "127.0.0.1", 0, process_request=reject) as server:
        with pytest.raises(UpgradeRejected) as rejected:
            await open_websocket(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")

    assert rejected.value.response_status == status
    assert rejected.value.body == b'{"error":{"message":"no"}}'


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="no upgrade"),
        pytest.param(b"this is no HTTP\r\n\r\n", id="not HTTP"),
        pytest.param(b"", id="closed without a response"),
    ],
)
@pytest.mark.gen_test(timeout=30)
async def test_failed_upgrade_is_an_upstream_error(response: bytes) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        await writer.drain()

    async with run_provider(respond) as url:
        with pytest.raises((UpstreamUnreachable, UpgradeRejected)):
            await asyncio.wait_for(open_websocket(url), 10)


@pytest.mark.gen_test(timeout=30)
async def test_upgrade_without_a_response_ends_at_the_connect_timeout() -> None:
    async def stay_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with run_provider(stay_silent) as url:
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(open_websocket(url, timeout_s=0.3), 10)


@pytest.mark.gen_test(timeout=30)
async def test_refused_connection_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UpstreamUnreachable):
            await open_websocket(f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.gen_test(timeout=30)
async def test_tls_trusts_only_the_authority_in_ca_file(tmp_path: Path) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.close()

    async with run_websocket_provider(greet, make_server_context()) as url:
        messages, closed = await receive_all(await open_websocket(url, ca=write_ca_file(tmp_path)))
        assert (messages, closed) == (["hello"], Closed(1000, ""))
        for untrusted in (None, write_ca_file(tmp_path, authority=trustme.CA())):
            with pytest.raises(UpstreamUnreachable, match=r"(?i)certificate"):
                await open_websocket(url, ca=untrusted)


@pytest.mark.gen_test(timeout=30)
async def test_ca_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.close()

    async with run_websocket_provider(greet, make_server_context()) as url:
        with pytest.raises(UpstreamUnreachable, match=r"(?i)certificate"):
            await open_websocket(url, ca=write_ca_file(tmp_path, authority=trustme.CA()))
        assert (await receive_all(await open_websocket(url, ca=write_ca_file(tmp_path))))[1] == Closed(1000, "")


@pytest.mark.parametrize("ca_file", ["missing.pem", "empty.pem"])
@pytest.mark.gen_test(timeout=30)
async def test_ca_file_that_cannot_be_read_is_unreachable(ca_file: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")

    async with run_websocket_provider(wait_close, make_server_context()) as url:
        with pytest.raises(UpstreamUnreachable, match="could not be reached"):
            await open_websocket(url, ca=str(tmp_path / ca_file))


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", id="rejected"),
        pytest.param(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", id="not confirmed"),
        pytest.param(b"this is no HTTP\r\n\r\n", id="not HTTP"),
        pytest.param(b"", id="closed without a response"),
        pytest.param(None, id="refused connection"),
    ],
)
def test_failed_connection_leaves_nothing_to_the_cycle_collector(response: bytes | None) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert response is not None
        writer.write(response)

    async def fail(url: str) -> None:
        with contextlib.suppress(UpstreamError):
            await open_websocket(url)

    async def count_unreachable() -> int:
        async with run_provider(respond) as url:
            url = url if response is not None else "http://127.0.0.1:1"
            await fail(url)
            gc.collect()
            await fail(url)
        await asyncio.sleep(0)
        return gc.collect()

    gc.disable()
    try:
        assert uvloop.run(count_unreachable()) == 0  # asyncio's own transports are in cycles
    finally:
        gc.enable()
