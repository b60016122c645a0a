"""What Tornado's handlers get in place of our request and its exchange."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler

from tests.http_server.serving import exchange, make_rejection, run_on_free_port
from tornado_proxy.http_server.exchange import Exchange, RequestReceiver
from tornado_proxy.http_server.request_body import BodyTimeouts
from tornado_proxy.http_server.server import ClientPortServer
from tornado_proxy.http_server.tornado_request import (
    TornadoReceiver,
    find_connection,
    find_incoming,
    make_tornado_request,
)

HEAD = b"POST /v1?a=b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"


class FreeCount:
    """Counts nothing and refuses nothing."""

    def add(self, size: int) -> None:
        pass

    def release(self) -> None:
        pass


class Routes:
    """Passes every request to one handler of Tornado."""

    def __init__(self, handler: type[RequestHandler]) -> None:
        self._application = Application([("/.*", handler)], log_function=lambda handler: None)

    def find_receiver(self, exchange: Exchange) -> RequestReceiver:
        request = make_tornado_request(exchange)
        return TornadoReceiver(request, self._application.find_handler(request), BodyTimeouts(), FreeCount)


def serve(handler: type[RequestHandler], *sent: bytes) -> bytes:
    async def run() -> bytes:
        server = ClientPortServer(Routes(handler), BodyTimeouts(), make_rejection)
        async with run_on_free_port(server) as port:
            return await exchange(port, *sent)

    return asyncio.run(run())


class DescribingHandler(RequestHandler):
    """Responds with the path, query, one header and body of the request."""

    def post(self) -> None:
        request = self.request
        assert find_incoming(request).target == request.uri
        self.finish(f"{request.path} {request.query_arguments} {request.headers['x-a']} {request.body!r}")


def test_handler_knows_query_repeated_headers_and_body() -> None:
    received = serve(DescribingHandler, HEAD + b"x-a: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\n", b"hi")

    assert received.endswith(b"/v1 {'a': [b'b']} 1,2 b'hi'")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"Content-Length: 1048577\r\n\r\nx", b"/v1?a=b Content-Length too long", id="length"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n",
            b"/v1?a=b body too large",
            id="chunks",
        ),
    ],
)
def test_body_of_more_than_a_mebibyte_is_refused(sent: bytes, said: bytes) -> None:
    assert serve(DescribingHandler, HEAD + sent).endswith(b"\r\n\r\n" + said)


def test_write_after_the_client_has_left_fails_and_does_not_raise() -> None:
    failed: list[Any] = []

    class LateHandler(RequestHandler):
        def post(self) -> None:
            connection = find_connection(self.request)
            connection.exchange.transport.abort()
            failed.append(connection.write(b"late").exception())
            connection.finish()

    serve(LateHandler, HEAD + b"\r\n")

    assert [type(error) for error in failed] == [StreamClosedError]
