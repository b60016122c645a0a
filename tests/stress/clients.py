"""Clients on plain sockets that stay, disconnect or stall at a given point."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import socket
import struct
from collections.abc import Callable

from tests.harness import TIMEOUT_S, ProxyProcess, mint
from tests.server.raw_provider import continue_reading, stop_reading
from tests.stress.provider import EVENTS, StressProvider, make_event

#: Where a client disconnects: within its request, then within the responses of tests/stress/provider.py.
PHASES = ("upload", "silent", "between", "ahead", "last")

_SMALL_WINDOW_BYTES = 16 * 1024

#: SO_LINGER on, 0 seconds: close() sends a reset.
_RESET = struct.pack("ii", 1, 0)


class Client:
    """A connection with one request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request

    @classmethod
    async def connect(cls, proxy: ProxyProcess, user: str, *, window: int = 0) -> Client:
        """Connect.

        Args:
            proxy: The server.
            user: The user of the request.
            window: Bytes that the kernel buffers for a client that does not read; 0 for its own choice.
        """
        connection = socket.socket()
        connection.setblocking(False)
        if window:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", int(proxy.base_url.rpartition(":")[2])))
        return cls(*await asyncio.open_connection(sock=connection), make_request(user))

    async def send_request(self, share: float = 1.0) -> None:
        """Send the request, or a share of it."""
        self._writer.write(self._request[: int(len(self._request) * share)])
        await self._writer.drain()

    def stall(self) -> None:
        """Stop reading."""
        stop_reading(self._reader)

    def resume(self) -> None:
        """Read again."""
        continue_reading(self._reader)

    async def read_until(self, text: bytes) -> None:
        await self._reader.readuntil(text)

    async def read_body(self) -> bytes:
        """Return the complete body."""
        parts: list[bytes] = []
        await self._feed_body(parts.append)
        return b"".join(parts)

    async def read_digest(self) -> str:
        """Return the SHA-256 of the complete body."""
        digest = hashlib.sha256()
        await self._feed_body(digest.update)
        return digest.hexdigest()

    async def _feed_body(self, feed: Callable[[bytes], object]) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise AssertionError(head.decode("latin-1"))
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is not None:  # the server had the complete response before it sent the head
            feed(await self._reader.readexactly(int(length[1])))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            feed(await self._reader.readexactly(size))
            await self._reader.readexactly(2)

    def disconnect(self) -> None:
        """Close the connection, or reset it as a process does that dies with unread data."""
        if random.random() < 0.5:
            connection = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()


def make_request(user: str) -> bytes:
    """Return a streaming chat request that asks for usage, so that the proxy changes no byte of the response."""
    content = {
        "model": "gpt-4o-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
        "user": user,
    }
    body = json.dumps(content).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Authorization: Bearer {mint(name=user)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


async def fetch_body(proxy: ProxyProcess, user: str) -> bytes:
    """Send a request; return the complete body of its response."""
    async with asyncio.timeout(TIMEOUT_S):
        client = await Client.connect(proxy, user)
        try:
            await client.send_request()
            return await client.read_body()
        finally:
            client.disconnect()


async def disconnect_early(proxy: ProxyProcess, provider: StressProvider, user: str) -> None:
    """Send a request and disconnect in the phase that the user's name starts with."""
    phase = user.partition("-")[0]
    async with asyncio.timeout(TIMEOUT_S):
        client = await Client.connect(proxy, user, window=_SMALL_WINDOW_BYTES if phase == "ahead" else 0)
        try:
            await client.send_request(share=0.9 if phase == "upload" else 1.0)
            if phase == "ahead":
                client.stall()
            if phase in ("silent", "ahead"):
                await provider.wait_reached(user)
            elif phase != "upload":
                await client.read_until(make_event(user, EVENTS - 1 if phase == "last" else 0))
            await asyncio.sleep(random.random() * 0.004)
        finally:
            client.disconnect()
