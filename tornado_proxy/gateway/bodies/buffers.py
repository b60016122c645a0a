"""Collects request bodies in memory that is used again.

A page of new memory costs a fault of the processor, and a body of 1 MB takes 256 of them: more time than all copies of
its bytes together.  The memory of a body is therefore kept for the next one, at most MAX_KEPT_BYTES in all.
"""

from __future__ import annotations

import io
import os

from tornado_proxy.domain.units import MIB

#: Bytes that wait for a body.  They stay in the process: more would be memory that most servers never need.
MAX_KEPT_BYTES = 8 * MIB

#: Bytes of the largest body whose memory is kept, and of the smallest: below it the allocator itself keeps the memory.
MAX_BODY_BYTES, MIN_BODY_BYTES = 2 * MIB, 128 * 1024

#: Bytes that have arrived before the rest of a body is read into its memory, which then grows by a quarter of them.
#: Its free bytes do not count as arrived, so a client must get few of them for those that it sends.
MIN_READ_BYTES = 128 * 1024

#: Free bytes from which on memory need not grow for the next read, and the bytes by which it grows at most.
_MIN_FREE_BYTES, _NEW_MEMORY = 16 * 1024, memoryview(bytes(256 * 1024))


class BodyBuffers:
    """The memory of earlier bodies."""

    def __init__(self) -> None:
        self._kept: list[io.BytesIO] = []
        #: Bytes of memory that wait for a body.
        self.kept_bytes = 0

    def open(self, first: bytes) -> BodyBuffer:
        """Return a buffer that holds `first`."""
        memory = io.BytesIO()
        if self._kept:
            memory = self._kept.pop()
            self.kept_bytes -= memory.tell()
            memory.seek(0)
        memory.write(first)
        return BodyBuffer(self, memory)

    def keep(self, memory: io.BytesIO) -> None:
        """Keep the memory of a body, whose length is its position."""
        size = memory.tell()
        if MIN_BODY_BYTES <= size <= MAX_BODY_BYTES and self.kept_bytes + size <= MAX_KEPT_BYTES:
            self._kept.append(memory)
            self.kept_bytes += size


class BodyBuffer:
    """Collects one body.  It grows in place: a list of chunks needs twice the memory to join."""

    __slots__ = ("_buffers", "_memory")

    def __init__(self, buffers: BodyBuffers, memory: io.BytesIO) -> None:
        self._buffers = buffers
        self._memory = memory

    def write(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._memory.write(chunk)

    def get_buffer(self, limit: int) -> memoryview:
        """Return memory for the next bytes, at least one and at most `limit`; drop it before the next call."""
        start, end = self._memory.tell(), self._memory.seek(0, os.SEEK_END)
        if end - start < min(limit, _MIN_FREE_BYTES):
            growth = min(max(start // 4, _MIN_FREE_BYTES), limit - (end - start))
            self._memory.write(_NEW_MEMORY[:growth])
        self._memory.seek(start)
        return self._memory.getbuffer()[start : start + limit]

    def advance(self, size: int) -> None:
        """Add the first `size` bytes of that memory."""
        self._memory.seek(size, os.SEEK_CUR)

    def finish(self) -> bytes:
        """Return the body, without a copy."""
        self._memory.truncate()
        return self._memory.getvalue()

    def release(self) -> None:
        """Let another body use the memory.  Call it once; bytes of finish() that are still in use do not change."""
        self._buffers.keep(self._memory)
