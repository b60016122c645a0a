"""The client port's server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from tornado_proxy.gateway import client_port
from tornado_proxy.gateway.client_port import ClientApplication, ClientServer

_REQUEST = b"GET /accounts/x HTTP/1.1\r\nHost: h\r\n\r\n"


class Hello(RequestHandler):
    """Says whether Nagle's algorithm is off while it answers."""

    def get(self) -> None:
        connection = self.request.connection
        off = connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[attr-defined]
        self.finish("off" if off else "on")


@contextlib.asynccontextmanager
async def serving(handler: type[RequestHandler] = Hello) -> AsyncIterator[int]:
    server = ClientServer(ClientApplication([("/accounts/.*", handler)], services=None))  # type: ignore[arg-type]
    (listening,) = bind_sockets(0, "127.0.0.1")
    server.add_sockets([listening])
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


async def answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return (await reader.readexactly(int(length.partition(b":")[2]))).decode()


def test_nagle_stays_off_on_a_connection_that_is_kept() -> None:
    async def run() -> list[str]:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = []
            for _ in range(3):
                writer.write(_REQUEST)
                said.append(await answer(reader))
            writer.close()
            return said

    assert asyncio.run(run()) == ["off", "off", "off"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(b"GET /accounts/x HTTP/1.1\r\nHo", id="half a head sent"),
        pytest.param(_REQUEST, id="kept open after an answer"),
    ],
)
def test_a_connection_that_sends_no_whole_head_is_ended(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_port, "_IDLE_S", 0.3)
    monkeypatch.setattr(client_port, "_SWEEP_S", 0.05)

    async def run() -> bytes:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            data = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return data

    assert asyncio.run(run()).rpartition(b"\r\n")[2] == (b"off" if sent == _REQUEST else b"")


def test_a_request_that_takes_long_is_not_taken_for_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_port, "_IDLE_S", 0.1)
    monkeypatch.setattr(client_port, "_SWEEP_S", 0.02)

    class Slow(RequestHandler):
        async def get(self) -> None:
            await asyncio.sleep(0.5)
            self.finish("done")

    async def run() -> str:
        async with serving(Slow) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            said = await asyncio.wait_for(answer(reader), 20)
            writer.close()
            return said

    assert asyncio.run(run()) == "done"
