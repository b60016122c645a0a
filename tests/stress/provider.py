"""A provider in the process of the test: what it sends is known byte for byte, and it counts what stands open.

The user of a request begins with the word for how it is answered:

    whole    words at a steady pace, then the usage and the end
    silent   nothing for a while, before the head
    between  a pause after each word
    ahead    as much as the connection takes, until it takes no more
    last     all words at once, and the last chunks a moment later
    long     as many bytes as the run says, at the pace of the other side
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

WORDS = 20

#: Seconds of silence after which a stream whose other side has stayed goes on.
SILENCE_S = 0.5

#: Bytes of a stream that runs ahead: more than all buffers on the way hold.
_AHEAD_BYTES = 64 * 1024 * 1024
_PIECE = 64 * 1024
_SEND_BUFFER_BYTES = 64 * 1024

#: Seconds without room for more after which the other side is taken to be full.
_FULL_S = 0.1

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
USAGE = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}\n\ndata: [DONE]\n\n'
)


def word(user: str, number: int) -> bytes:
    """One event, unlike any other of the run."""
    delta = b'{"index":0,"delta":{"content":"word %d of %b "}}' % (number, user.encode())
    return b'data: {"id":"c1","model":"gpt-4o-mini","choices":[%b]}\n\n' % delta


def whole_answer(user: str) -> bytes:
    """All bytes of the body that a complete stream has."""
    return b"".join(word(user, number) for number in range(WORDS)) + USAGE


def pieces(size: int) -> Iterator[bytes]:
    """Events of 64 KiB, each unlike the one before, `size` bytes in all or a little more."""
    for number in range(-(-size // _PIECE)):
        text = b"%d " % number
        yield b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (text * (_PIECE // len(text)))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class StressProvider:
    """`asked` are the users of the requests that came in whole, in order."""

    def __init__(self, long_bytes: int = 0) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.open_streams = 0
        self.connections = 0
        #: Streams that ran ahead until there was no more room.
        self.full = 0
        self._long_bytes = long_bytes
        self._reached: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)
        self._answers: dict[str, Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
            "whole": self._whole,
            "silent": self._silent,
            "between": self._between,
            "ahead": self._ahead,
            "last": self._last,
            "long": self._long,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StressProvider]:
        """Listen on a port of its own."""
        async with await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def reached(self, user: str) -> None:
        """Wait until the stream of `user` is where its client leaves: asked for, or full."""
        await self._reached[user].wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                user = str(json.loads(await read_request(reader))["user"])
                self.asked.append(user)
                await self._answer(user, reader, writer)
        self.connections -= 1
        writer.close()

    async def _answer(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_streams += 1
        try:
            await self._answers[user.partition("-")[0]](user, reader, writer)
            writer.write(chunk(USAGE) + _LAST_CHUNK)
            await writer.drain()
        finally:
            self.open_streams -= 1
            self._reached.pop(user, None)

    async def _whole(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        for number in range(WORDS):
            writer.write(chunk(word(user, number)))
            await writer.drain()
            await asyncio.sleep(0.01)

    async def _silent(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reached[user].set()
        await _stay(reader, SILENCE_S)
        writer.write(_HEAD)

    async def _between(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        for number in range(WORDS):
            writer.write(chunk(word(user, number)))
            await _stay(reader, SILENCE_S / WORDS)

    async def _ahead(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        writer.write(_HEAD)
        for piece in pieces(_AHEAD_BYTES):
            writer.write(chunk(piece))
            if await self._is_full(user, writer):
                return

    async def _long(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        for piece in pieces(self._long_bytes):
            writer.write(chunk(piece))
            await self._is_full(user, writer)

    async def _is_full(self, user: str, writer: asyncio.StreamWriter) -> bool:
        """Wait for room; whether there was none for a while."""
        room = asyncio.create_task(writer.drain())
        full = not (await asyncio.wait({room}, timeout=_FULL_S))[0]
        if full:
            self.full += 1
            self._reached[user].set()
        await room
        return full

    async def _last(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD + b"".join(chunk(word(user, number)) for number in range(WORDS)))
        await writer.drain()
        await asyncio.sleep(random.random() * 0.005)


async def _stay(reader: asyncio.StreamReader, seconds: float) -> None:
    """Say nothing for a while.

    Raises:
        ConnectionError: the other side has left meanwhile.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read(1)  # a proxy asks again only when it has been answered
            raise ConnectionResetError


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))
