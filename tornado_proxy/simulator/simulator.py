"""The stand-in itself: how it listens."""

from __future__ import annotations

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_proxy.simulator.routes import make_routes
from tornado_proxy.simulator.state import SimulatorState

#: Bytes of one request's body: more than the proxy lets through.
_MAX_BODY_BYTES = 256 * 1024 * 1024


class Simulator(SimulatorState):
    """A provider stand-in that speaks OpenAI's and Anthropic's API on one port."""

    _server: HTTPServer | None = None

    def make_app(self) -> Application:
        """The Tornado application.  It writes no access log."""
        return Application(make_routes(self), log_function=lambda handler: None)

    async def start(self, port: int = 0, host: str = "127.0.0.1", *, reuse_port: bool = False) -> int:
        """Listen, on a free port for 0, and give the port.  Needs a running event loop.

        With `reuse_port` several processes can serve one port; each remembers only what it served itself.
        """
        assert self._server is None, "a simulator is started once"
        server = HTTPServer(self.make_app(), max_body_size=_MAX_BODY_BYTES, max_buffer_size=_MAX_BODY_BYTES)
        sockets = bind_sockets(port, host, backlog=4096, reuse_port=reuse_port)
        server.add_sockets(sockets)
        self._server = server
        bound: int = sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening and close every connection; requests that still run end."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            await server.close_all_connections()
