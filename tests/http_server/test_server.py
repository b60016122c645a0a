"""The server of the client port on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.http_server.serving import Routes, make_rejection, run_application
from tornado_proxy.http_server import idle_connections
from tornado_proxy.http_server import server as server_module
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.server import ClientPortServer
from tornado_proxy.http_server.tornado_request import TornadoConnection

_REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class NagleHandler(RequestHandler):
    """Responds "off" if Nagle's algorithm is off on the connection, else "on"."""

    def get(self) -> None:
        connection = self.request.connection
        assert isinstance(connection, TornadoConnection)
        off = connection.exchange.transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.finish("off" if off else "on")


class EchoHandler(RequestHandler):
    """Responds with the request's path, query and body."""

    def post(self) -> None:
        self.finish(f"{self.request.uri} {self.request.body.decode()}")

    get = post


class SingleHandlerApplication(Application):
    """Routes every request to one handler."""

    def __init__(self, handler: type[RequestHandler]) -> None:
        super().__init__([("/.*", handler)], log_function=lambda handler: None)


@contextlib.asynccontextmanager
async def run_server(
    handler: type[RequestHandler] = NagleHandler, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve `handler` on a free port; yield the port."""
    async with run_application(SingleHandlerApplication(handler), tls) as port:
        yield port


async def read_response_body(reader: asyncio.StreamReader) -> str:
    """Read one response that has a Content-Length; return its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return (await reader.readexactly(int(length.partition(b":")[2]))).decode()


def test_nagle_stays_off_on_a_keep_alive_connection() -> None:
    async def run() -> list[str]:
        async with run_server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            bodies = []
            for _ in range(3):
                writer.write(_REQUEST)
                bodies.append(await read_response_body(reader))
            writer.close()
            return bodies

    assert asyncio.run(run()) == ["off", "off", "off"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(b"GET / HTTP/1.1\r\nHo", id="half of the headers sent"),
        pytest.param(_REQUEST, id="kept open after a response"),
    ],
)
def test_connection_without_complete_headers_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(idle_connections, "_HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.05)

    async def run() -> bytes:
        async with run_server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            data = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return data

    assert asyncio.run(run()).rpartition(b"\r\n")[2] == (b"off" if sent == _REQUEST else b"")


def test_slow_request_does_not_count_as_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_IDLE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)

    class SlowHandler(RequestHandler):
        async def get(self) -> None:
            await asyncio.sleep(0.5)
            self.finish("done")

    async def run() -> str:
        async with run_server(SlowHandler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            body = await asyncio.wait_for(read_response_body(reader), 20)
            writer.close()
            return body

    assert asyncio.run(run()) == "done"


async def exchange(sent: bytes, handler: type[RequestHandler] = EchoHandler) -> bytes:
    """Send `sent`; return all bytes until the server closes."""
    async with run_server(handler) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


@pytest.mark.parametrize(
    "before",
    [pytest.param(b"", id="first request"), pytest.param(_REQUEST, id="after a response")],
)
def test_half_a_head_is_closed_long_before_an_idle_connection(before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.05)

    response = asyncio.run(exchange(before + b"GET /x HTTP/1.1\r\nHo"))

    assert response.count(b"HTTP/1.1") == (1 if before else 0)


def test_kept_connection_may_be_idle_for_longer_than_a_head_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_HEAD_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)

    async def run() -> list[str]:
        async with run_server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            bodies = []
            for pause_s in (0.0, 0.5):
                await asyncio.sleep(pause_s)
                writer.write(_REQUEST)
                bodies.append(await read_response_body(reader))
            writer.close()
            return bodies

    assert asyncio.run(run()) == ["off", "off"]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_unfinished_tls_handshake_is_closed_like_half_a_head(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.05)

    async def run() -> bytes:
        async with run_server(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            try:
                return await asyncio.wait_for(reader.read(), 20)
            finally:
                writer.close()

    assert asyncio.run(run()) == b""


def test_unfinished_tls_handshake_gives_way_to_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_MIN_CLOSE_IDLE_S", 0.0)

    async def run() -> tuple[list[bool], bytes]:
        application = SingleHandlerApplication(NagleHandler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = ClientPortServer(Routes(application), BodyTimeouts(), make_rejection, tls)
        (listening,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        await asyncio.sleep(0.1)
        closed = [server.close_idle_connection(), server.close_idle_connection()]
        received = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        server.stop()
        await server.close_all_connections()
        return closed, received

    assert asyncio.run(run()) == ([True, False], b"")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        pytest.param("http://api.openai.com/v1/models", "/v1/models", id="a path"),
        pytest.param("HTTPS://h:8080/v1/models?limit=2", "/v1/models?limit=2", id="a port and a query"),
        pytest.param("http://h", "/", id="no path"),
        pytest.param("http://h?a=http://b/", "/?a=http://b/", id="a query without a path"),
        pytest.param("/v1/http://h/", "/v1/http://h/", id="a path that holds a URL"),
    ],
)
def test_target_in_absolute_form_is_read_as_its_path(target: str, seen: str) -> None:
    response = asyncio.run(exchange(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()))

    assert response.endswith(f"\r\n\r\n{seen} ".encode())


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue", "100-CONTINUE"])
def test_client_that_expects_100_continue_gets_it(expect: str) -> None:
    async def run() -> bytes:
        async with run_server(EchoHandler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST / HTTP/1.1\r\nHost: h\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\n"
            writer.write(head.encode())
            interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            writer.write(b"hi")
            body = await asyncio.wait_for(read_response_body(reader), 20)
            writer.close()
            return interim + body.encode()

    assert asyncio.run(run()) == b"HTTP/1.1 100 (Continue)\r\n\r\n/ hi"


@pytest.mark.parametrize(
    ("request_bytes", "said"),
    [
        pytest.param(b"GET /v1 HTTP/1.1\r\n\r\n", b"/v1 Missing Host header", id="no host"),
        pytest.param(
            b"GET /v1 HTTP/1.1\r\nHost: h\r\nA\x01: secret\r\n\r\n", b"/v1 Invalid header token", id="bad name"
        ),
        pytest.param(b"GET\r\n\r\n", b"/ Expected space after method", id="no target"),
        pytest.param(
            b"POST /v1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"/v1 Invalid character in chunk size",
            id="bad chunk",
        ),
        pytest.param(
            b"POST /v1 HTTP/1.1\r\nHost: h\r\nContent-Length: secret\r\n\r\n",
            b"/v1 Invalid character in Content-Length",
            id="bad length",
        ),
    ],
)
def test_malformed_request_gets_the_application_s_400_without_its_bytes(request_bytes: bytes, said: bytes) -> None:
    assert asyncio.run(exchange(request_bytes)) == b"HTTP/1.1 400 Bad Request\r\n\r\n" + said


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500, id="client hello"),
        pytest.param(b"\x16", id="first byte alone"),
    ],
)
def test_tls_on_the_plain_port_gets_a_plain_400_at_once(hello: bytes, caplog: pytest.LogCaptureFixture) -> None:
    response = asyncio.run(exchange(hello))

    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n")
    assert b"use http:// or ws://" in response
    assert [record.message for record in caplog.records] == ["TLS on the plain port: connection closed"]


def test_first_byte_of_tls_in_a_later_read_is_only_a_byte() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"

    async def run() -> bytes:
        async with run_server(EchoHandler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.write(b"\x16\x03\x01")
            data = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return data

    assert asyncio.run(run()).endswith(b"/ \x16\x03\x01")


@pytest.mark.parametrize("turns", range(6))
def test_connection_that_opens_while_the_server_closes_is_closed(turns: int) -> None:
    async def run() -> socket.socket:
        async with run_server() as port:
            client = socket.create_connection(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
            return client

    with contextlib.closing(asyncio.run(run())) as client:
        gc.collect()  # one that is left open warns, which fails the test
        client.settimeout(20)
        with contextlib.suppress(ConnectionResetError):  # it was not accepted yet
            assert client.recv(1) == b""
