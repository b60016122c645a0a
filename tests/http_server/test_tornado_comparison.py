"""The same requests to Tornado's own server and to ours: both serve the same ones, or the difference has a reason."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets

from tests.http_server.serving import run_server

#: Method, target and body of each request that a server has passed to its application.
Served = list[tuple[str, str, bytes]]

HOST = b" HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /v1" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

#: Requests that both servers serve, or that both refuse.
ALIKE = {
    "get": (b"GET /v1?a=b" + HOST + b"\r\n", [("GET", "/v1?a=b", b"")]),
    "length": (POST + b"Content-Length: 3\r\n\r\nabc", [("POST", "/v1", b"abc")]),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", [("POST", "/v1", b"abcde")]),
    "chunks in capitals": (POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", [("POST", "/v1", b"a")]),
    "two requests": (
        POST + b"Content-Length: 1\r\n\r\naGET /2" + HOST + b"\r\n",
        [("POST", "/v1", b"a"), ("GET", "/2", b"")],
    ),
    "HTTP/1.0 without a host": (b"GET /v1 HTTP/1.0\r\n\r\n", [("GET", "/v1", b"")]),
    "empty line before": (b"\r\nGET /v1" + HOST + b"\r\n", [("GET", "/v1", b"")]),
    "white space around a value": (b"GET /v1 HTTP/1.1\r\nHost: \t h \t\r\n\r\n", [("GET", "/v1", b"")]),
    "bytes over 127 in a value": (b"GET /v1" + HOST + b"A: \xc3\xa9\r\n\r\n", [("GET", "/v1", b"")]),
    "asterisk": (b"OPTIONS *" + HOST + b"\r\n", [("OPTIONS", "*", b"")]),
    "unknown method": (b"BREW /v1" + HOST + b"Content-Length: 3\r\n\r\nabc", [("BREW", "/v1", b"abc")]),
    "method in lower case": (b"get /v1" + HOST + b"\r\n", [("get", "/v1", b"")]),
    "CONNECT": (b"CONNECT h:443" + HOST + b"\r\n", [("CONNECT", "h:443", b"")]),
    "CONNECT with a path": (b"CONNECT /v1" + HOST + b"\r\n", [("CONNECT", "/v1", b"")]),
    "no host": (b"GET /v1 HTTP/1.1\r\n\r\n", []),
    "two hosts": (b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", []),
    "host with a path": (b"GET /v1 HTTP/1.1\r\nHost: a/b\r\n\r\n", []),
    "no target": (b"GET HTTP/1.1\r\nHost: h\r\n\r\n", []),
    "no version": (b"GET /v1\r\nHost: h\r\n\r\n", []),
    "HTTP/2.0": (b"GET /v1 HTTP/2.0\r\nHost: h\r\n\r\n", []),
    "space in the target": (b"GET /v1 /v2" + HOST + b"\r\n", []),
    "control byte in the target": (b"GET /v\x011" + HOST + b"\r\n", []),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", []),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", []),
    "length with a sign": (POST + b"Content-Length: +3\r\n\r\nabc", []),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabc", []),
    "length in another script": (POST + b"Content-Length: \xb2\r\n\r\nabc", []),
    "length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\n0123456789", []),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", []),
    "coding before chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", []),
    "coding after chunks": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", []),
    "name like chunks": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", []),
    "folded line": (b"GET /v1" + HOST + b"A: b\r\n c\r\n\r\n", []),
    "white space before the first header": (b"GET /v1 HTTP/1.1\r\n Host: h\r\n\r\n", []),
    "space before the colon": (b"GET /v1 HTTP/1.1\r\nHost : h\r\n\r\n", []),
    "no colon": (b"GET /v1" + HOST + b"A\r\n\r\n", []),
    "no name": (b"GET /v1" + HOST + b": b\r\n\r\n", []),
    "control byte in a name": (b"GET /v1" + HOST + b"A\x01: b\r\n\r\n", []),
    "zero byte in a value": (b"GET /v1" + HOST + b"A: b\x00\r\n\r\n", []),
    "bare carriage return": (b"GET /v1" + HOST + b"A: b\rC: d\r\n\r\n", []),
    "no chunk size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", []),
    "chunk size with a prefix": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", []),
    "chunk size with an underscore": (CHUNKED + b"1_0\r\n0123456789\r\n0\r\n\r\n", []),
    "negative chunk size": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", []),
    "chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", []),
    "bare line feed after a chunk size": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", []),
    "bare line feed in a chunk extension": (CHUNKED + b"3;a\nabc\r\n0\r\n\r\n", []),
    "TLS": (b"\x16\x03\x01\x02\x00\r\n\r\n", []),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []),
}  # fmt: skip

SERVED = [("POST", "/v1", b"abc")]

#: Requests that only one of them serves: those that Tornado's server passes on, those that ours does, and the reason.
DIFFERENT: dict[str, tuple[bytes, Served, Served, str]] = {
    "chunk extension": (
        CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n", [], SERVED,
        "RFC 9112 section 7.1.1: a recipient must ignore extensions; some HTTP libraries sign chunks by them",
    ),
    "trailers": (
        CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", [], SERVED,
        "RFC 9112 section 7.1.2: a recipient may discard trailers; curl sends them on request",
    ),
    "white space after a chunk size": (
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", [], SERVED,
        "RFC 9112 section 7.1.1: bad white space must be accepted; old libraries pad the size",
    ),
    "target in absolute form": (
        POST.replace(b"/v1", b"http://h/v1") + b"Content-Length: 3\r\n\r\nabc", [("POST", "http://h/v1", b"abc")],
        SERVED, "RFC 9112 section 3.2.2: a server must accept it; Tornado passes it to the application as it is",
    ),
    "two empty lines before": (
        b"\r\n\r\n" + POST + b"Content-Length: 3\r\n\r\nabc", [], SERVED,
        "RFC 9112 section 2.2: at least one must be ignored; Tornado takes two for the end of a head",
    ),
    "one length twice": (
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", SERVED, [],
        "RFC 9110 section 8.6 allows to reject it; llhttp accepts no repetition, of which no client is known",
    ),
    "list of equal lengths": (
        POST + b"Content-Length: 3, 3\r\n\r\nabc", SERVED, [],
        "RFC 9110 section 8.6 allows to reject it; llhttp accepts no repetition, of which no client is known",
    ),
    "bare line feeds": (
        b"POST /v1 HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc", SERVED, [],
        "programs that end lines differently see different requests; Tornado 6.7 rejects them too",
    ),
    "chunks in HTTP/1.0": (
        CHUNKED.replace(b"1.1", b"1.0") + b"3\r\nabc\r\n0\r\n\r\n", SERVED, [],
        "RFC 9112 section 6.1: the framing is faulty; a program that knows only HTTP/1.0 sees another body",
    ),
    "HTTP/1.2": (
        POST.replace(b"1.1", b"1.2") + b"Content-Length: 3\r\n\r\nabc", SERVED, [],
        "the version does not exist",
    ),
    "two spaces before the target": (
        POST.replace(b" /v1", b"  /v1") + b"Content-Length: 3\r\n\r\nabc", [], SERVED,
        "RFC 9112 section 3: a recipient may take several spaces for one; neither target nor framing changes",
    ),
    "unknown method in a later request": (
        POST + b"Content-Length: 3\r\n\r\nabcBREW /2" + HOST + b"\r\n", [*SERVED, ("BREW", "/2", b"")], SERVED,
        "llhttp rejects methods that it does not know; only the first one of a read is served in spite of it",
    ),
    "request behind an unknown method": (
        b"BREW /v1" + HOST + b"Content-Length: 3\r\n\r\nabcGET /2" + HOST + b"\r\n",
        [("BREW", "/v1", b"abc"), ("GET", "/2", b"")], [("BREW", "/v1", b"abc")],
        "where an unknown method's body ends is a guess, so it is the last request of its connection",
    ),
    "target that is no path": (
        POST.replace(b"/v1", b"1/v1") + b"Content-Length: 3\r\n\r\nabc", [("POST", "1/v1", b"abc")], [],
        "it has none of the forms of RFC 9112 section 3.2; no route has it",
    ),
    "bytes over 127 in the target": (
        POST.replace(b"/v1", b"/\xc3\xa9") + b"Content-Length: 3\r\n\r\nabc", [("POST", "/\xc3\xa9", b"abc")], [],
        "RFC 3986 section 2: a URI has no such bytes; no route has any",
    ),
}  # fmt: skip


class Application:
    """Keeps the requests that it is given, and responds with 200 to each."""

    def __init__(self) -> None:
        self.served: Served = []

    def __call__(self, request: HTTPServerRequest) -> None:
        self.served.append((request.method or "", request.uri or "", request.body))
        assert request.connection is not None
        request.connection.write_headers(ResponseStartLine("", 200, "OK"), HTTPHeaders({"Content-Length": "0"}))
        request.connection.finish()


async def send(port: int, sent: bytes, responses: int) -> bytes:
    """Send `sent`; return the bytes that arrive until there are as many responses, or the server has closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(sent)
        while received.count(b"HTTP/1.1 ") < responses:
            data = await asyncio.wait_for(reader.read(65536), 20)
            if not data:
                break
            received += data
    finally:
        writer.close()
    return received


async def serve_with_tornado(sent: bytes, responses: int) -> tuple[Served, bytes]:
    application = Application()
    server = HTTPServer(application, max_header_size=65536)
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        received = await send(listening.getsockname()[1], sent, responses)
        return application.served, received
    finally:
        server.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await server.close_all_connections()


async def serve_with_ours(sent: bytes, responses: int) -> tuple[Served, bytes]:
    application = Application()
    async with run_server(application) as port:
        received = await send(port, sent, responses)
    return application.served, received


@pytest.mark.parametrize("name", ALIKE)
def test_both_servers_serve_the_same_requests(name: str) -> None:
    sent, expected = ALIKE[name]

    async def run() -> None:
        responses = max(1, len(expected))
        served, received = await serve_with_tornado(sent, responses)
        assert (served, received.count(b" 200 OK")) == (expected, len(expected))
        served, received = await serve_with_ours(sent, responses)
        assert (served, received.count(b" 200 OK")) == (expected, len(expected))
        assert expected or b" 400 Bad Request" in received

    asyncio.run(run())


@pytest.mark.parametrize("name", DIFFERENT)
def test_difference_to_tornado_s_server_is_the_one_that_is_listed(name: str) -> None:
    sent, tornado_s, ours, _ = DIFFERENT[name]
    responses = max(1, len(tornado_s))

    async def run() -> None:
        assert (await serve_with_tornado(sent, responses))[0] == tornado_s
        served, received = await serve_with_ours(sent, responses)
        assert served == ours
        assert ours or b" 400 Bad Request" in received

    asyncio.run(run())
