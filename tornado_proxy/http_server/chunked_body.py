"""Reads a chunked request body: ignores chunk extensions and discards trailers (RFC 9112 sections 7.1.1 and 7.1.2).

Tornado's reader rejects both.  curl sends trailers on request, and some HTTP libraries sign chunks by extensions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from tornado.httputil import HTTPInputError
from tornado.iostream import IOStream

#: A chunk's size with its extensions.  No control character but the tab: a bare CR or LF inside an extension is read as
#: a line end by some programs, which then see another body ("request smuggling").
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")

#: A trailer field or the empty line after the trailers.
_TRAILER_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\r\n")

#: Bytes of one chunk line or trailer.
_MAX_LINE_BYTES = 8 * 1024

#: Bytes of all extensions and trailers of a body.  Same as the limit of the headers: they carry the same kind of data.
_MAX_IGNORED_BYTES = 64 * 1024

#: Bytes of a chunk line without extensions, as the longest size has.
_PLAIN_LINE_BYTES = 18

#: Bytes after which other connections get their turn, and bytes that a chunk counts for in addition to its data.
_YIELD_BYTES, _CHUNK_COST_BYTES = 1024 * 1024, 512


class ChunkedBody:
    """A chunked body on `stream`.  Small chunks are joined to pieces of `piece_bytes` before they are delivered.

    Args:
        stream: The connection; its next byte is the first chunk's size.
        deliver: Called with each piece.
        piece_bytes: Bytes of a piece; a smaller one is delivered when the client must be waited for.
        max_bytes: Bytes of the body at most.
    """

    def __init__(
        self, stream: IOStream, deliver: Callable[[bytes], Awaitable[None]], *, piece_bytes: int, max_bytes: int
    ) -> None:
        self._stream = stream
        self._deliver = deliver
        self._piece_bytes = piece_bytes
        self._remaining_bytes = max_bytes
        self._pending = bytearray()
        self._ignored_bytes = 0
        self._work_bytes = 0

    async def read(self) -> None:
        """Read the body to its end.

        Raises:
            HTTPInputError: the body is malformed or too large.
        """
        while size := await self._read_size():
            self._remaining_bytes -= size
            if self._remaining_bytes < 0:
                raise HTTPInputError("chunked body too large")
            await self._read_chunk(size)
        while (line := await self._read_line(_TRAILER_LINE, "malformed trailer"))[0] != b"\r\n":
            self._ignore(len(line[0]))
        await self._flush()

    async def _read_size(self) -> int:
        line = await self._read_line(_CHUNK_LINE, "malformed chunk size")
        self._ignore(len(line[0]) - _PLAIN_LINE_BYTES)
        await self._give_way(_CHUNK_COST_BYTES)
        return int(line[1], 16)

    async def _read_chunk(self, size: int) -> None:
        while size:
            data = await self._wait(self._stream.read_bytes(min(size, self._piece_bytes), partial=True))
            size -= len(data)
            self._pending += data
            if len(self._pending) >= self._piece_bytes:
                await self._flush()
            await self._give_way(len(data))
        if await self._wait(self._stream.read_bytes(2)) != b"\r\n":
            raise HTTPInputError("chunk longer than its size")

    async def _read_line(self, pattern: re.Pattern[bytes], fault: str) -> re.Match[bytes]:
        line = await self._wait(self._stream.read_until(b"\r\n", max_bytes=_MAX_LINE_BYTES))
        match = pattern.fullmatch(line)
        if match is None:
            raise HTTPInputError(fault)
        return match

    def _ignore(self, size: int) -> None:
        self._ignored_bytes += max(0, size)
        if self._ignored_bytes > _MAX_IGNORED_BYTES:
            raise HTTPInputError("chunk extensions and trailers too large")

    async def _wait(self, data: Awaitable[bytes]) -> bytes:
        """Wait for bytes of the client; deliver buffered data first, so that its progress counts."""
        if self._pending and not (isinstance(data, asyncio.Future) and data.done()):
            await self._flush()
        return await data

    async def _flush(self) -> None:
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            await self._deliver(data)

    async def _give_way(self, work_bytes: int) -> None:
        """Let other connections run after much work: bytes that have arrived already are read without a wait."""
        self._work_bytes += work_bytes
        if self._work_bytes >= _YIELD_BYTES:
            self._work_bytes = 0
            await asyncio.sleep(0)
