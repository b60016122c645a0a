"""A client connection that requests streams and measures them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import cast

from bench.contestants import Contestant
from bench.load.chunks import END, ChunkDecoder

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SENT_AT = re.compile(rb"@(\d+)@")

#: Bytes of the previous read that are searched again, since two reads may split a match; `_SENT_AT` matches fewer.
_TAIL_BYTES = 32

#: Read buffer, one for all connections: a buffer for each of 10,000 streams would be 2.5 GB.
_BUFFER = memoryview(bytearray(256 * 1024))

#: Streams from one source address: more would use up its ports.
_STREAMS_PER_ADDRESS = 4000


class Stream(asyncio.BufferedProtocol):
    """A connection.  `request_stream` starts a stream; `ended` resolves to True if the stream is complete.

    `framed` leaves the framing of chunks in the body.  This is faster, but misses an event whose first bytes a relay
    splits between two chunks.
    """

    #: The first bytes of each event, and bytes of the last one.
    event = b"data: {"
    last = b"[DONE]"

    def __init__(self, contestant: Contestant, *, framed: bool = False) -> None:
        self.status = 0
        self.events = 0
        self.received_bytes = 0
        self.requested_ns = 0
        self.first_event_ns = 0
        #: Nanoseconds between the provider's write of each timed event and its arrival; None collects none.
        self.delays_ns: list[int] | None = None
        self.ended: asyncio.Future[bool]
        self.changed = asyncio.Event()
        self.transport: asyncio.Transport
        self.contestant = contestant
        self._framed = framed
        self._head = b""
        self._tail = b""
        self._chunks: ChunkDecoder | None = None
        self._length: int | None = None
        self._done = False

    def request_stream(self, directive: str) -> None:
        """Send a request for the stream of `directive` (bench/provider.py)."""
        self.status = 0
        self._head = b""
        self._reset()
        self.transport.write(make_request(self.contestant, directive))

    def _reset(self) -> None:
        self.events = self.received_bytes = self.first_event_ns = 0
        self._tail = b""
        self._done = False
        self.ended = asyncio.get_running_loop().create_future()
        self.requested_ns = time.monotonic_ns()

    def disconnect(self) -> int:
        """Close the connection and return the time, monotonic nanoseconds."""
        now = time.monotonic_ns()
        self.transport.abort()
        return now

    async def wait_for_events(self, count: int) -> None:
        """Wait until `count` events have arrived or the stream has ended."""
        while self.events < count and not self.ended.done():
            self.changed.clear()
            await self.changed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(complete=self._done and self._chunks is None and self._length is None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_BUFFER[:nbytes])
        if self.status == 0:
            data = self._read_head(data)
        if data:
            self._read_body(data)

    def _read_head(self, data: bytes) -> bytes:
        head, end, body = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return b""
        self.status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        self._length = int(length[1]) if length else None
        self._chunks = ChunkDecoder() if b"transfer-encoding: chunked" in head.lower() else None
        if not self.is_accepted(self.status):
            self._end(complete=False)
        return body

    def _read_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._chunks is not None and not self._framed:
            data = self._chunks.feed(data)
        joined = self._tail + data
        self.received_bytes += len(data)
        self.events += joined.count(self.event) - self._tail.count(self.event)
        if self.first_event_ns == 0 and self.events:
            self.first_event_ns = now
        if self.delays_ns is not None:
            known = len(self._tail)
            self.delays_ns.extend(now - int(sent[1]) for sent in _SENT_AT.finditer(joined) if sent.end() > known)
        self._done = self._done or self.last in joined
        self._tail = joined[-_TAIL_BYTES:]
        if self.is_last(joined):
            self._end(complete=self._done or self._framed)
        self.changed.set()

    def is_accepted(self, status: int) -> bool:
        """Return True if a stream follows a response with `status`."""
        return status == 200

    def is_last(self, joined: bytes) -> bool:
        """Return True if `joined`, the last bytes read, end the response."""
        if self._chunks is None:
            return self.received_bytes == self._length
        return joined.endswith(END) if self._framed else self._chunks.ended

    def _end(self, *, complete: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(complete)
        self.changed.set()


def make_request(contestant: Contestant, directive: str) -> bytes:
    """Return a request for a streamed chat completion, as an SDK sends it."""
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": f"[[bench {directive}]]"}],
        }
    ).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {contestant.host}:{contestant.port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in contestant.headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def choose_source_address(number: int) -> str:
    """Return the source address of connection `number`, since one address has too few ports for all."""
    return f"127.0.0.{2 + number // _STREAMS_PER_ADDRESS}"


async def connect(contestant: Contestant, number: int = 0, *, framed: bool = False) -> Stream:
    """Open a connection; `number` counts those of a measurement and selects the source address."""
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: Stream(contestant, framed=framed),
        contestant.host,
        contestant.port,
        local_addr=(choose_source_address(number), 0),
    )
    return stream


@dataclass(frozen=True, slots=True)
class ProviderState:
    """The provider's streams: the number of open ones, and the times at which others were cut, by id."""

    open: int
    cut: dict[int, int]


async def fetch_provider_state(port: int) -> ProviderState:
    """Request the state of the provider, which must run as one process."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /state HTTP/1.1\r\nHost: provider\r\nConnection: close\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    state = json.loads(await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0])))
    writer.close()
    return ProviderState(len(state["open"]), {int(number): at for number, at in state["cut"].items()})
