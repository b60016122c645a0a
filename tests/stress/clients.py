"""Clients that stay, leave or stall, on plain sockets: each does exactly what it is told to its connection."""

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
from tests.stress.provider import WORDS, StressProvider, word

#: Where a client leaves: in the middle of its request, then as the words of tests/stress/provider.py say.
PHASES = ("upload", "silent", "between", "ahead", "last")

_SMALL_WINDOW = 16 * 1024
_RESET = struct.pack("ii", 1, 0)


class Client:
    """One connection and one request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request

    @classmethod
    async def connect(cls, proxy: ProxyProcess, user: str, *, window: int = 0) -> Client:
        """`window`: how many bytes the kernel may take in for a client that does not read; 0 for its own choice."""
        connection = socket.socket()
        connection.setblocking(False)
        if window:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", int(proxy.base_url.rpartition(":")[2])))
        return cls(*await asyncio.open_connection(sock=connection), request_of(user))

    async def ask(self, share: float = 1.0) -> None:
        """Send the request, or a share of it."""
        self._writer.write(self._request[: int(len(self._request) * share)])
        await self._writer.drain()

    def stall(self) -> None:
        """Read nothing more."""
        self._reader._transport.pause_reading()  # type: ignore[attr-defined]  # no public way to stop reading

    def wake(self) -> None:
        """Read again."""
        self._reader._transport.resume_reading()  # type: ignore[attr-defined]

    async def read_until(self, text: bytes) -> None:
        await self._reader.readuntil(text)

    async def answer(self) -> bytes:
        """The whole body."""
        parts: list[bytes] = []
        await self._each_piece(parts.append)
        return b"".join(parts)

    async def digest(self) -> str:
        """The SHA-256 of the whole body."""
        found = hashlib.sha256()
        await self._each_piece(found.update)
        return found.hexdigest()

    async def _each_piece(self, take: Callable[[bytes], object]) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise AssertionError(head.decode("latin-1"))
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is not None:  # the whole answer was there before its head left
            take(await self._reader.readexactly(int(length[1])))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            take(await self._reader.readexactly(size))
            await self._reader.readexactly(2)

    def leave(self) -> None:
        """Close the connection: politely, or as a process does that dies with unread data."""
        if random.random() < 0.5:
            connection = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()


def request_of(user: str) -> bytes:
    """A chat stream that asks for its usage, so that every byte of the answer is the provider's."""
    asked = {
        "model": "gpt-4o-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
        "user": user,
    }
    body = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Authorization: Bearer {mint(name=user)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


async def stay(proxy: ProxyProcess, user: str) -> bytes:
    """The whole body of an answer."""
    async with asyncio.timeout(TIMEOUT_S):
        client = await Client.connect(proxy, user)
        try:
            await client.ask()
            return await client.answer()
        finally:
            client.leave()


async def leave(proxy: ProxyProcess, provider: StressProvider, user: str) -> None:
    """Ask, and go in the phase that the user's name begins with."""
    phase = user.partition("-")[0]
    async with asyncio.timeout(TIMEOUT_S):
        client = await Client.connect(proxy, user, window=_SMALL_WINDOW if phase == "ahead" else 0)
        try:
            await client.ask(share=0.9 if phase == "upload" else 1.0)
            if phase == "ahead":
                client.stall()
            if phase in ("silent", "ahead"):
                await provider.reached(user)
            elif phase != "upload":
                await client.read_until(word(user, WORDS - 1 if phase == "last" else 0))
            await asyncio.sleep(random.random() * 0.004)
        finally:
            client.leave()
