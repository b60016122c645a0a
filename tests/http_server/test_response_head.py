"""The head of a response and the framing of its body are those that Tornado itself writes."""

from __future__ import annotations

import asyncio

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets

from tests.http_server.serving import Receive, exchange, run_server
from tornado_proxy.http_server.tornado_request import find_connection

Headers = list[tuple[str, str]]

LENGTH = [("content-length", "5")]
REPEATED = [("x-b", "1"), ("via", "a"), ("X-B", "2"), ("x-request-id", "caf\xe9")]


async def tornado_bytes(sent: bytes, status: int, headers: Headers, data: bytes) -> bytes:
    """Return the bytes that Tornado's server writes for the head and the first bytes of a body."""

    def receive(request: HTTPServerRequest) -> None:
        fields = HTTPHeaders()
        for name, value in headers:
            fields.add(name, value)
        connection = request.connection
        connection.write_headers(ResponseStartLine("", status, "Fine"), fields, data)  # type: ignore[union-attr]
        connection.close()  # type: ignore[union-attr]  # an HTTP1Connection

    server = HTTPServer(receive)
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        return await exchange(listening.getsockname()[1], sent)
    finally:
        server.stop()
        await server.close_all_connections()


async def our_bytes(sent: bytes, receive: Receive) -> bytes:
    async with run_server(receive) as port:
        return await exchange(port, sent)


@pytest.mark.parametrize("connection_header", ["", "close", "Keep-Alive"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    ("method", "status", "headers", "data"),
    [
        pytest.param("POST", 200, LENGTH, b"12345", id="length"),
        pytest.param("POST", 200, LENGTH, b"", id="head alone"),
        pytest.param("POST", 200, REPEATED, b"12345", id="chunks, and a header twice"),
        pytest.param("POST", 429, REPEATED + LENGTH, b"123", id="start of a body"),
        pytest.param("HEAD", 200, LENGTH, b"", id="head request"),
        pytest.param("GET", 204, [], b"", id="no content"),
        pytest.param("GET", 304, [], b"", id="not modified"),
    ],
)
def test_head_is_the_one_that_tornado_writes(  # the arguments of a table
    method: str, status: int, headers: Headers, data: bytes, version: str, connection_header: str
) -> None:
    line = f"Connection: {connection_header}\r\n" if connection_header else ""
    sent = f"{method} / {version}\r\nHost: h\r\n{line}\r\n".encode()

    def write_response(request: HTTPServerRequest) -> None:
        response = find_connection(request).exchange
        response.begin_response(status, "Fine", headers)
        response.send(data)
        response.close()

    def write_as_a_handler_does(request: HTTPServerRequest) -> None:
        connection = find_connection(request)
        fields = HTTPHeaders()
        for name, value in headers:
            fields.add(name, value)
        connection.write_headers(ResponseStartLine("", status, "Fine"), fields, data)
        connection.close()

    async def compare() -> None:
        expected = await tornado_bytes(sent, status, headers, data)
        if version == "HTTP/1.0" and method == "POST" and headers == REPEATED:
            # Only the end of the connection ends this body, so Tornado's promise to keep it open is not made.
            expected = expected.replace(b"Connection: Keep-Alive\r\n", b"")

        assert await our_bytes(sent, write_response) == expected
        assert await our_bytes(sent, write_as_a_handler_does) == expected

    asyncio.run(compare())


@pytest.mark.parametrize("length", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_names_that_are_spelled_are_sent_as_they_are(length: str) -> None:
    def receive(request: HTTPServerRequest) -> None:
        response = find_connection(request).exchange
        headers = [("x-request-id", "1"), ("via", "a"), ("X-Request-Id", "2"), (length, "2")]
        response.begin_response(200, "OK", headers, spelled=True)
        response.send(b"ok")
        response.close()

    expected = f"HTTP/1.1 200 OK\r\nx-request-id: 1\r\nvia: a\r\nX-Request-Id: 2\r\n{length}: 2\r\n\r\nok".encode()
    assert asyncio.run(our_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", receive)) == expected


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb"])
def test_line_end_in_a_header_is_never_written(value: str) -> None:
    def receive(request: HTTPServerRequest) -> None:
        response = find_connection(request).exchange
        response.begin_response(200, "OK", [("x-id", value)])
        with pytest.raises(ValueError, match="line end"):
            response.send(b"data")
        response.abort()

    assert asyncio.run(our_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", receive)) == b""


@pytest.mark.parametrize("data", [b"123456", b"1234"])
def test_body_that_is_not_as_long_as_stated_ends_in_a_broken_connection(data: bytes) -> None:
    def receive(request: HTTPServerRequest) -> None:
        connection = find_connection(request)
        connection.write_headers(ResponseStartLine("", 200, "OK"), HTTPHeaders({"Content-Length": "5"}))
        with pytest.raises(Exception, match=r"Content-Length|missing"):
            connection.exchange.end(data)

    received = asyncio.run(our_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", receive))

    assert received.endswith(b"\r\n\r\n")
