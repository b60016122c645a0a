"""Connections of the server: order of pipelined requests, back-pressure, upgrades, TLS."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import Any

import pytest
import trustme
from httptools import HttpRequestParser
from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPStreamClosedError
from tornado.web import Application, RequestHandler
from tornado.websocket import websocket_connect

from tests.http_server.serving import FunctionApplication, exchange, run_application, run_server
from tornado_proxy import tasks
from tornado_proxy.http_server import request_parser
from tornado_proxy.http_server.client_socket import ClientSocket
from tornado_proxy.http_server.incoming_request import IncomingRequest
from tornado_proxy.http_server.tornado_request import TornadoConnection, find_connection
from tornado_proxy.http_server.upgraded_connection import accept_websocket
from tornado_proxy.upstream.websocket.message_protocol import Wait

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def respond(request: HTTPServerRequest, body: bytes) -> None:
    assert request.connection is not None
    fields = HTTPHeaders({"Content-Length": str(len(body))})
    request.connection.write_headers(ResponseStartLine("", 200, "OK"), fields, body)
    request.connection.finish()


async def echo_later(request: HTTPServerRequest) -> None:
    """Respond with the target; the first requests take longest."""
    await asyncio.sleep(0.03 if request.uri == "/0" else 0)
    respond(request, f"<{request.uri}>".encode())


def echo(request: HTTPServerRequest) -> None:
    tasks.spawn(echo_later(request), "echo")


@pytest.mark.parametrize("cut", [1, 7, 1 << 30])
def test_pipelined_requests_are_answered_in_order(cut: int) -> None:
    sent = b"".join(GET % number for number in range(5)) + LAST

    async def run() -> bytes:
        async with run_server(echo) as port:
            return await exchange(port, *(sent[at : at + cut] for at in range(0, len(sent), cut)))

    received = asyncio.run(run())

    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"</0>", b"</1>", b"</2>", b"</3>", b"</4>", b"</last>"]


@pytest.mark.parametrize("next_request", [b"", GET % 1, b"GET /x HTTP/1.1\r\nA : b\r\n\r\n"])
def test_connection_whose_response_streams_holds_no_parser_and_takes_the_next_request(next_request: bytes) -> None:
    held: list[int] = []

    async def stream(request: HTTPServerRequest) -> None:
        assert request.connection is not None
        request.connection.write_headers(ResponseStartLine("", 200, "OK"), HTTPHeaders(), b"event")
        held.append(sum(isinstance(value, HttpRequestParser) for value in gc.get_objects()) - before)
        await asyncio.sleep(0.01)  # the next request arrives meanwhile
        request.connection.finish()

    async def run() -> bytes:
        def receive(request: HTTPServerRequest) -> None:
            tasks.spawn(stream(request), "stream") if request.uri == "/0" else echo(request)

        async with run_server(receive) as port:
            return await exchange(port, GET % 0, next_request, LAST)

    gc.collect()
    before = sum(isinstance(value, HttpRequestParser) for value in gc.get_objects())
    received = asyncio.run(run())

    streamed = b"5\r\nevent\r\n0\r\n\r\n"
    assert held == [0]
    assert received.count(streamed) == 1
    rest = received.partition(streamed)[2]
    if b"A : b" in next_request:
        assert rest.endswith(b"/x Invalid header token")
    else:
        assert (b"</1>" in rest, rest.endswith(b"</last>")) == (bool(next_request), True)


def test_malformed_request_is_answered_after_the_requests_before_it() -> None:
    async def run() -> bytes:
        async with run_server(echo) as port:
            return await exchange(port, GET % 0 + GET % 1 + b"GET /x HTTP/1.1\r\nA : b\r\n\r\n")

    received = asyncio.run(run())

    assert received.index(b"</0>") < received.index(b"</1>") < received.index(b"400 Bad Request")
    assert received.endswith(b"/x Invalid header token")


def test_requests_that_wait_for_an_earlier_response_are_not_read() -> None:
    """The client sends 20 MB of requests behind one that is not answered; nearly all stay in its own buffers."""
    waiting = asyncio.Event()
    served: list[str | None] = []

    def receive(request: HTTPServerRequest) -> None:
        served.append(request.uri)
        waiting.set()

    async def run() -> int:
        async with run_server(receive) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET % 0 + b"GET /x HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n" % (b"b" * 20_000) * 1_000)
            await waiting.wait()
            await asyncio.sleep(0.3)
            unsent = writer.transport.get_write_buffer_size()
            writer.transport.abort()
            return unsent

    unsent = asyncio.run(run())

    assert served == ["/0"]
    assert unsent > 10_000_000


def test_few_of_many_requests_in_one_read_are_parsed_before_the_first_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others would keep the clients of other connections waiting meanwhile."""
    parsed = 0
    parsed_at_first = []

    class CountedRequest(IncomingRequest):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            nonlocal parsed
            parsed += 1
            super().__init__(*arguments, **named)

    def receive(request: HTTPServerRequest) -> None:
        parsed_at_first.append(parsed)
        respond(request, b"")

    monkeypatch.setattr(request_parser, "IncomingRequest", CountedRequest)

    async def run() -> bytes:
        async with run_server(receive) as port:
            return await exchange(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 5_000 + LAST)

    received = asyncio.run(run())

    assert received.count(b"HTTP/1.1 200 OK") == 5_001
    assert parsed_at_first[0] < 700


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 300000\r\n\r\n%b", b"Transfer-Encoding: chunked\r\n\r\n493e0\r\n%b\r\n0\r\n\r\n"]
)
def test_requests_behind_a_large_body_are_served(framing: bytes) -> None:
    sent = b"POST /0 HTTP/1.1\r\nHost: h\r\n" + framing % (b"b" * 300_000) + GET % 1 * 3_000 + LAST

    async def run() -> bytes:
        async with run_server(echo) as port:
            return await exchange(port, sent)

    received = asyncio.run(run())

    assert received.count(b"</0>") == 1
    assert received.count(b"</1>") == 3_000
    assert received.endswith(b"</last>")


class SlowDelegate(HTTPMessageDelegate):
    """Takes the body only after a while."""

    def __init__(self, request: HTTPServerRequest) -> None:
        self._request = request

    async def headers_received(self, start_line: object, headers: object) -> None:  # type: ignore[override]
        await asyncio.sleep(0.2)

    def data_received(self, chunk: bytes) -> None:
        self._request.body += chunk

    def finish(self) -> None:
        respond(self._request, b"%d" % len(self._request.body))


class SlowApplication(FunctionApplication):
    def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        super().find_handler(request)
        return SlowDelegate(request)


def test_body_arrives_whole_at_a_handler_that_was_not_ready_for_it() -> None:
    size = 5_000_000
    sent = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size

    async def run() -> bytes:
        async with run_application(SlowApplication(echo)) as port:
            return await exchange(port, sent)

    assert asyncio.run(run()).endswith(b"\r\n\r\n5000000")


def test_upgrade_that_the_server_does_not_offer_is_ignored() -> None:
    """JDK clients ask for HTTP/2 in their first request, which has a body (RFC 9110 section 7.8)."""
    first = (
        b"POST /0 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 3\r\n\r\nabc"
    )

    async def run() -> bytes:
        async with run_server(echo) as port:
            return await exchange(port, first + GET % 1 + first + LAST)

    received = asyncio.run(run())

    assert received.count(b"200 OK") == 4
    assert received.endswith(b"</last>")


def test_response_before_the_end_of_the_body_closes_the_connection_and_arrives_whole() -> None:
    class RefusingDelegate(HTTPMessageDelegate):
        def __init__(self, request: HTTPServerRequest) -> None:
            self._request = request

        def headers_received(self, start_line: object, headers: object) -> None:  # type: ignore[override]
            respond(self._request, b"no")

    class RefusingApplication(FunctionApplication):
        def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
            super().find_handler(request)
            return RefusingDelegate(request)

    async def run() -> bytes:
        async with run_application(RefusingApplication(echo)) as port:
            head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
            return await exchange(port, head, *[b"b" * 10_000] * 20)

    received = asyncio.run(run())

    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b"\r\n\r\nno")


def test_client_that_leaves_is_reported_once_to_the_handler_that_waits() -> None:
    calls: list[str] = []
    arrived = asyncio.Event()

    def receive(request: HTTPServerRequest) -> None:
        assert isinstance(request.connection, TornadoConnection)
        request.connection.set_close_callback(lambda: calls.append("left"))
        arrived.set()

    async def run() -> None:
        async with run_server(receive) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET % 0)
            await arrived.wait()
            writer.close()
            for _ in range(200):
                if calls:
                    break
                await asyncio.sleep(0.01)

    asyncio.run(run())

    assert calls == ["left"]


class Uncounted:
    """Bytes that no limit counts."""

    def add(self, size: int) -> None:
        pass

    def release(self) -> None:
        pass


class EchoWebSocket(RequestHandler):
    """Sends each message back."""

    def get(self) -> None:
        self.client = ClientSocket(1 << 24, Uncounted())
        self.client.open(accept_websocket(self, None), self)

    def from_client(self, message: str | bytes) -> Wait | None:
        return self.client.send_frame(message)

    def client_left(self, code: int | None, reason: str | None) -> None:
        del self.client


class WebSocketApplication(FunctionApplication):
    def __init__(self, handler: type[RequestHandler] = EchoWebSocket) -> None:
        super().__init__(echo)
        self._tornado = Application([("/.*", handler)])

    def find_handler(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        super().find_handler(request)
        delegate: HTTPMessageDelegate = self._tornado.find_handler(request)
        return delegate


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority of the server's certificate."""
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("size", [3, 200_000])
def test_messages_pass_both_ways_after_an_upgrade(secure: bool, size: int, authority: trustme.CA) -> None:
    tls = server_context(authority) if secure else None

    async def run() -> list[str | bytes | None]:
        async with run_application(WebSocketApplication(), tls) as port:
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/"
            client = await websocket_connect(HTTPRequest(url, ssl_options=client_context(authority)))
            for number in range(20):
                client.write_message(f"{number}" * size)
            messages = [await asyncio.wait_for(client.read_message(), 20) for _ in range(20)]
            client.close(1000, "done")
            assert await asyncio.wait_for(client.read_message(), 20) is None
            return messages

    assert asyncio.run(run()) == [f"{number}" * size for number in range(20)]


def test_upgrade_of_a_client_that_has_just_left_is_refused() -> None:
    raised: list[bool] = []

    class LateHandler(RequestHandler):
        def get(self) -> None:
            find_connection(self.request).exchange.transport.abort()  # as at the end of the client's bytes
            try:
                accept_websocket(self, None)
            except StreamClosedError:
                raised.append(True)

    async def run() -> None:
        async with run_application(WebSocketApplication(LateHandler)) as port:
            with pytest.raises(HTTPStreamClosedError):
                await websocket_connect(f"ws://127.0.0.1:{port}/")

    asyncio.run(run())

    assert raised == [True]


def test_request_over_tls_knows_its_scheme_and_gets_its_whole_response(authority: trustme.CA) -> None:
    def receive(request: HTTPServerRequest) -> None:
        respond(request, request.protocol.encode() + b"b" * 3_000_000)

    async def run() -> bytes:
        async with run_server(receive, server_context(authority)) as port:
            return await exchange(port, LAST, ssl_context=client_context(authority))

    received = asyncio.run(run())

    assert received.partition(b"\r\n\r\n")[2] == b"https" + b"b" * 3_000_000


def test_plain_request_on_a_tls_port_is_closed(authority: trustme.CA) -> None:
    async def run() -> bytes:
        async with run_server(echo, server_context(authority)) as port:
            try:
                return await exchange(port, LAST)
            except ConnectionResetError:
                return b""

    assert b"200" not in asyncio.run(run())
