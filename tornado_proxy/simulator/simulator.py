"""The simulator's server: it opens and closes the port."""

from __future__ import annotations

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_proxy.simulator.routes import make_routes
from tornado_proxy.simulator.state import SimulatorState

#: Bytes of a request's body; more than the proxy accepts, so that the proxy's limit is the one that tests meet.
_MAX_BODY_BYTES = 256 * 1024 * 1024


class Simulator(SimulatorState):
    """A simulated provider that serves OpenAI's and Anthropic's API on one port."""

    _server: HTTPServer | None = None

    def make_app(self) -> Application:
        """Return the Tornado application.  It writes no access log."""
        return Application(make_routes(self), log_function=lambda handler: None)

    async def start(self, port: int = 0, host: str = "127.0.0.1", *, reuse_port: bool = False) -> int:
        """Listen on `port`, or on a free port for 0, and return the port.  Needs a running event loop.

        With `reuse_port` several processes serve one port; each knows only the requests and objects that it served.
        """
        assert self._server is None, "start() is called once"
        server = HTTPServer(self.make_app(), max_body_size=_MAX_BODY_BYTES, max_buffer_size=_MAX_BODY_BYTES)
        # 4096: benchmarks open thousands of connections at once, more than Tornado's default backlog of 128.
        sockets = bind_sockets(port, host, backlog=4096, reuse_port=reuse_port)
        server.add_sockets(sockets)
        self._server = server
        bound: int = sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening and close all connections, which ends the requests in flight."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            await server.close_all_connections()
