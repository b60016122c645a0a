"""How the bytes of a request come to its handler: the head at once, the body in chunks, a task when all is there.

Tornado's own delegate runs a task from the head on, which sleeps until the body has come; that is two turns of the loop
and three futures for each request (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from tornado.httputil import HTTPMessageDelegate

from tornado_proxy import tasks
from tornado_proxy.gateway.http.handler import ProxyHandler
from tornado_proxy.http_server.body_timeout import BodyTimeouts


class RequestDelegate(HTTPMessageDelegate):
    """Feeds one request to `handler`."""

    def __init__(self, handler: ProxyHandler, bodies: BodyTimeouts) -> None:
        self._handler = handler
        self._bodies = bodies

    def headers_received(self, start_line: Any, headers: Any) -> Awaitable[None] | None:
        """The head is there."""
        self._bodies.begins(self._handler)
        try:
            return self._handler.prepare()
        except Exception as error:  # noqa: BLE001  # else Tornado closes the connection without a word
            self._handler.fail(error)
            return None

    def data_received(self, chunk: bytes) -> None:
        """Bytes of the body."""
        self._handler.data_received(chunk)

    def finish(self) -> None:
        """The request is whole."""
        self._bodies.ends(self._handler)
        tasks.spawn(self._handler.serve(), "call")

    def on_connection_close(self) -> None:
        """The client left before that."""
        self._bodies.ends(self._handler)
        self._handler.on_client_gone()
