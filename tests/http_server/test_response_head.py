"""The head of a response and the framing of its body are those that Tornado itself writes."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream

from tornado_proxy.http_server.response_writer import ResponseWriter

Headers = list[tuple[str, str]]

LENGTH = [("content-length", "5")]
REPEATED = [("x-b", "1"), ("via", "a"), ("X-B", "2"), ("x-request-id", "caf\xe9")]


def open_connection(
    method: str, version: str, connection_header: str
) -> tuple[HTTP1Connection, HTTPServerRequest, socket.socket]:
    """Return a connection that has read a request, the request, and the client's socket."""
    ours, client = socket.socketpair()
    connection = HTTP1Connection(IOStream(ours), is_client=False, params=HTTP1ConnectionParameters())
    start_line = RequestStartLine(method, "/", version)
    headers = HTTPHeaders({"Host": "h", **({"Connection": connection_header} if connection_header else {})})
    connection._request_start_line, connection._request_headers = start_line, headers
    connection._disconnect_on_finish = not connection._can_keep_alive(start_line, headers)
    request = HTTPServerRequest(headers=headers, connection=connection, start_line=start_line)
    return connection, request, client


def read_all(connection: HTTP1Connection, client: socket.socket) -> bytes:
    connection.stream.close()
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def tornado_bytes(status: int, headers: Headers, data: bytes, request_of: tuple[str, str, str]) -> tuple[bytes, object]:
    connection, _, client = open_connection(*request_of)
    fields = HTTPHeaders()
    for name, value in headers:
        fields.add(name, value)
    connection.write_headers(ResponseStartLine("", status, "Fine"), fields, data)
    return read_all(connection, client), (connection._chunking_output, connection._expected_content_remaining)


def our_bytes(status: int, headers: Headers, data: bytes, request_of: tuple[str, str, str]) -> tuple[bytes, object]:
    connection, request, client = open_connection(*request_of)
    writer = ResponseWriter(request)
    writer.begin(status, "Fine", headers)
    writer.send(data)
    return read_all(connection, client), (connection._chunking_output, connection._expected_content_remaining)


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
    async def compare() -> None:
        request_of = (method, version, connection_header)
        expected = tornado_bytes(status, headers, data, request_of)
        if version == "HTTP/1.0" and method == "POST" and headers == REPEATED:
            # Only the end of the connection ends this body, so Tornado's promise to keep it open is not made.
            expected = expected[0].replace(b"Connection: Keep-Alive\r\n", b""), expected[1]

        assert our_bytes(status, headers, data, request_of) == expected

    asyncio.run(compare())


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb"])
def test_line_end_in_a_header_is_never_written(value: str) -> None:
    async def write() -> bytes:
        connection, request, client = open_connection("POST", "HTTP/1.1", "")
        writer = ResponseWriter(request)
        writer.begin(200, "OK", [("x-id", value)])
        with pytest.raises(ValueError, match="line end"):
            writer.send(b"data")
        return read_all(connection, client)

    assert asyncio.run(write()) == b""
