"""A provider in the process of the test: every byte it sends is known, and it counts its open streams.

The user of a request starts with the word that selects its response:

    whole    events at a steady pace, then the usage and the end
    silent   nothing for a while before the head
    between  a pause after each event
    ahead    as much as the connection takes, until it takes no more
    last     all events at once, and the last chunks a moment later
    long     as many bytes as the run configures, as fast as the proxy reads
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from tests.server.raw_provider import chunk, read_request

#: Events of a stream.
EVENTS = 20

#: Seconds of silence after which a stream continues if the proxy has not closed it.
SILENCE_S = 0.5

#: Bytes of a stream that runs ahead: more than all buffers between provider and client hold.
_AHEAD_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024

#: The kernel grows a send buffer to several MB on its own, which could hold a whole stream.
_SEND_BUFFER_BYTES = 64 * 1024

#: Seconds of blocked writing after which all buffers up to the client count as full.
_FULL_S = 0.1

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
USAGE = (
    b'data: {"id":"c1","model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}\n\ndata: [DONE]\n\n'
)


def make_event(user: str, number: int) -> bytes:
    """Return an event that differs from all others of the run."""
    delta = b'{"index":0,"delta":{"content":"word %d of %b "}}' % (number, user.encode())
    return b'data: {"id":"c1","model":"gpt-4o-mini","choices":[%b]}\n\n' % delta


def complete_body(user: str) -> bytes:
    """Return the body of a complete stream."""
    return b"".join(make_event(user, number) for number in range(EVENTS)) + USAGE


def large_events(size: int) -> Iterator[bytes]:
    """Yield events of 64 KiB, each different from the one before, `size` bytes in all or a little more."""
    for number in range(-(-size // _PIECE_BYTES)):
        text = b"%d " % number
        content = text * (_PIECE_BYTES // len(text))
        yield b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % content


class StressProvider:
    """The provider's state; `users` are the users of the complete requests received, in order."""

    def __init__(self, long_bytes: int = 0) -> None:
        self.url = ""
        self.users: list[str] = []
        self.open_streams = 0
        self.connections = 0
        #: Streams that ran ahead until all buffers were full.
        self.full_streams = 0
        self._long_bytes = long_bytes
        self._reached: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)
        self._responses: dict[str, Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
            "whole": self._send_steadily,
            "silent": self._delay_head,
            "between": self._pause_between_events,
            "ahead": self._run_ahead,
            "last": self._delay_end,
            "long": self._send_long,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StressProvider]:
        """Listen on a free port."""
        async with await asyncio.start_server(self._handle, "127.0.0.1", 0, backlog=1024) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def wait_reached(self, user: str) -> None:
        """Wait until the stream of `user` is at the point where its client disconnects, full, or complete."""
        await self._reached[user].wait()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                user = str(json.loads(await read_request(reader))["user"])
                self.users.append(user)
                await self._respond(user, reader, writer)
        self.connections -= 1
        writer.close()

    async def _respond(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_streams += 1
        try:
            await self._responses[user.partition("-")[0]](user, reader, writer)
            writer.write(chunk(USAGE) + _LAST_CHUNK)
            await writer.drain()
        finally:
            self.open_streams -= 1
            self._reached[user].set()

    async def _send_steadily(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        for number in range(EVENTS):
            writer.write(chunk(make_event(user, number)))
            await writer.drain()
            await asyncio.sleep(0.01)

    async def _delay_head(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reached[user].set()
        await _pause(reader, SILENCE_S)
        writer.write(_HEAD)

    async def _pause_between_events(
        self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(_HEAD)
        for number in range(EVENTS):
            writer.write(chunk(make_event(user, number)))
            await _pause(reader, SILENCE_S / EVENTS)

    async def _run_ahead(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _limit_send_buffer(writer)
        writer.write(_HEAD)
        for event in large_events(_AHEAD_BYTES):
            writer.write(chunk(event))
            if await self._is_full(user, writer):
                return

    async def _send_long(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _limit_send_buffer(writer)
        writer.write(_HEAD)
        for event in large_events(self._long_bytes):
            writer.write(chunk(event))
            if self._reached[user].is_set():
                await writer.drain()
            else:
                await self._is_full(user, writer)

    async def _is_full(self, user: str, writer: asyncio.StreamWriter) -> bool:
        """Wait until the transport accepts more; return True if that took longer than _FULL_S."""
        drained = asyncio.create_task(writer.drain())
        full = not (await asyncio.wait({drained}, timeout=_FULL_S))[0]
        if full:
            self.full_streams += 1
            self._reached[user].set()
        await drained
        return full

    async def _delay_end(self, user: str, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD + b"".join(chunk(make_event(user, number)) for number in range(EVENTS)))
        await writer.drain()
        await asyncio.sleep(random.random() * 0.005)


def _limit_send_buffer(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


async def _pause(reader: asyncio.StreamReader, seconds: float) -> None:
    """Send nothing for a while.

    Raises:
        ConnectionError: The proxy closed the connection meanwhile.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read(1)  # the proxy sends the next request only after this response
            raise ConnectionResetError
