"""The routing of client requests, with the application on its real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from tests.gateway.fakes import Gateway, make_snapshot
from tornado_proxy.gateway.application import ClientApplication
from tornado_proxy.gateway.services import Services
from tornado_proxy.http_server import idle_connections, request_body
from tornado_proxy.http_server import server as server_module
from tornado_proxy.http_server.server import ClientPortServer


class SlowHandler(RequestHandler):
    """Responds after the idle timeout of the test."""

    async def get(self) -> None:
        await asyncio.sleep(0.5)
        self.finish("done")


def test_request_that_matches_a_rule_is_not_closed_as_idle_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "_IDLE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)

    async def run() -> bytes:
        application = ClientApplication([("/accounts/.*", SlowHandler)], services=None)  # type: ignore[arg-type]
        server = ClientPortServer(application, application.body_timeouts, application.make_rejection)
        (listening,) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([listening])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
            writer.write(b"GET /accounts/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            response = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return response
        finally:
            server.stop()
            await server.close_all_connections()

    assert asyncio.run(run()).endswith(b"\r\n\r\ndone")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"POST /accounts/x HTTP/1.1\r\nHost: h\r\n", id="below /accounts/"),
        pytest.param(b"GET /v1/realtime HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n", id="upgrade"),
    ],
)
def test_body_of_a_request_that_tornado_collects_times_out(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)
    monkeypatch.setattr(request_body, "_BODY_TIMEOUT_S", 0.1)

    async def run() -> bytes:
        async with run_application(Gateway(make_snapshot()).services()) as port:
            return await send_and_read(port, head + b"Content-Length: 10\r\n\r\n123")

    assert asyncio.run(run()) == b""


def test_bodies_of_requests_that_tornado_collects_are_limited_over_all() -> None:
    services = Gateway(make_snapshot(limits={"max_arriving_mb": 1})).services()

    async def run() -> list[bytes]:
        async with run_application(services) as port:
            sent = b"POST /accounts/x HTTP/1.1\r\nHost: h\r\nContent-Length: 700000\r\n\r\n" + b"x" * 600_000
            first = asyncio.ensure_future(send_and_read(port, sent))
            while REGISTRY.get_sample_value("llm_proxy_arriving_bytes") != 600_000:  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.01)
            second = await send_and_read(port, sent)
            first.cancel()
            await asyncio.wait({first})
            return [second]

    assert asyncio.run(run()) == [b""]


@contextlib.asynccontextmanager
async def run_application(services: Services) -> AsyncIterator[int]:
    """Serve SlowHandler below /accounts/ on a free port; yield the port."""
    application = ClientApplication([("/accounts/.*", SlowHandler)], services)
    server = ClientPortServer(application, application.body_timeouts, application.make_rejection)
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


async def send_and_read(port: int, sent: bytes) -> bytes:
    """Send `sent`; return all bytes until the server closes, b"" if it resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_preflight_can_send_no_large_body() -> None:
    services = Gateway(make_snapshot(public={"allow_origins": frozenset({"https://a.example"})})).services()
    head = (
        b"OPTIONS /v1/models HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"
    )

    async def run() -> list[bytes]:
        async with run_application(services) as port:
            plain = await send_and_read(port, head + b"Connection: close\r\n\r\n")
            return [plain, await send_and_read(port, head + b"Content-Length: 1048577\r\n\r\nx")]

    plain, large = asyncio.run(run())

    assert plain.startswith(b"HTTP/1.1 204 ")
    assert large.startswith(b"HTTP/1.1 400 ")
