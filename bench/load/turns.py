"""Callers that take turns: each sends JSON requests over connections of its own while the others are silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.contestants import Contestant
from bench.machine import read_thread_cpu_ns
from bench.requests import CHAT_COMPLETION

#: Connections of each caller.
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, and the CPU time that a server has used: that of its event loop's thread, and of all threads."""

    requests: int
    loop_ns: int
    all_ns: int

    def __sub__(self, earlier: Usage) -> Usage:
        """Return the requests and the CPU time since `earlier`."""
        return Usage(self.requests - earlier.requests, self.loop_ns - earlier.loop_ns, self.all_ns - earlier.all_ns)


class Caller:
    """A caller of a server."""

    def __init__(self, contestant: Contestant, connections: Sequence[_Connection]) -> None:
        self._contestant = contestant
        self._connections = connections

    @classmethod
    async def connect(cls, contestant: Contestant, token: str) -> Caller:
        """Return a caller with this token, whose connections are open."""
        request = _make_request(token)
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: _Connection(request), contestant.host, contestant.port)
            for _ in range(_CONNECTIONS)
        ]
        return cls(contestant, [connection for _, connection in opened])

    async def take_turn(self, seconds: float) -> None:
        """Send requests for some seconds; return when the last one has its response.

        Raises:
            RuntimeError: the server refused a request.
            ConnectionError: it closed a connection.
        """
        for connection in self._connections:
            connection.start()
        await asyncio.sleep(seconds)
        await asyncio.gather(*(connection.stop() for connection in self._connections))

    def read_usage(self) -> Usage:
        """Return the requests of this caller so far, and the CPU time of its server."""
        assert self._contestant.root_pid is not None
        times = read_thread_cpu_ns(self._contestant.root_pid)
        requests = sum(connection.requests for connection in self._connections)
        return Usage(requests, times[self._contestant.root_pid], sum(times.values()))

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


class _Connection(asyncio.Protocol):
    """Sends one request after the other while it is on."""

    def __init__(self, request: bytes) -> None:
        self.requests = 0
        self._request = request
        self._received = b""
        self._is_on = False
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def start(self) -> None:
        """Send requests from now on."""
        self._is_on, self._ended = True, asyncio.get_running_loop().create_future()
        self._transport.write(self._request)

    async def stop(self) -> None:
        """Send no more requests; return when the last one has its response."""
        self._is_on = False
        assert self._ended is not None
        await self._ended

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _read_length(head):
            return
        self._received, self.requests = b"", self.requests + 1
        if self._is_on:
            self._transport.write(self._request)
        elif self._ended is not None:
            self._ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error or ConnectionError("the server has closed a connection"))


def _make_request(token: str) -> bytes:
    body = f"{CHAT_COMPLETION.before}{'word ' * 8}{CHAT_COMPLETION.after}"
    head = (
        f"POST {CHAT_COMPLETION.path} HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*head, "", body)).encode()


def _read_length(head: bytes) -> int:
    status, *lines = head.lower().split(b"\r\n")
    if b" 200 " not in status:
        raise RuntimeError(f"the server refused a request: {head!r}")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
