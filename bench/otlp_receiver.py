"""A receiver of OTLP that takes everything and keeps nothing: `python -m bench.otlp_receiver` prints its port."""

from __future__ import annotations

import asyncio

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler


class _Receiver(RequestHandler):
    def post(self, _path: str) -> None:
        self.set_header("Content-Type", "application/x-protobuf")


async def main() -> None:
    """Serve until the process is killed."""
    socket, port = bind_unused_port()
    HTTPServer(Application([(r"/(.*)", _Receiver)]), max_body_size=1 << 28).add_sockets([socket])
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
