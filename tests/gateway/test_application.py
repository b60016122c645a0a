"""The routing of client requests, with the application on its real server."""

from __future__ import annotations

import asyncio

import pytest
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from tornado_proxy.gateway.application import ClientApplication
from tornado_proxy.http_server import server as server_module
from tornado_proxy.http_server.server import ClientPortServer


class SlowHandler(RequestHandler):
    """Responds after the idle timeout of the test."""

    async def get(self) -> None:
        await asyncio.sleep(0.5)
        self.finish("done")


def test_request_that_matches_a_rule_is_not_closed_as_idle_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_IDLE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_INTERVAL_S", 0.02)

    async def run() -> bytes:
        application = ClientApplication([("/accounts/.*", SlowHandler)], services=None)  # type: ignore[arg-type]
        server = ClientPortServer(
            application, application.idle_connections, application.body_timeouts, application.make_rejection
        )
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
