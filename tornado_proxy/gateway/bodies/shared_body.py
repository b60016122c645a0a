"""A request body in memory that a worker process can map, so that the body is in memory once.

    write() ──> memfd ── seal ──> mapped here, read-only: the bytes that are sent to the provider
                            └───> mapped by the worker, which gets the descriptor (gateway/bodies/workers.py)

The kernel frees the memory when the last descriptor and mapping of it are gone, however their processes end.  Seals
keep a worker that a body has taken over from changing or truncating the body that is sent.
"""

from __future__ import annotations

import fcntl
import mmap
import os

#: Bytes of the smallest body for which it is worth the system calls.
MIN_SHARED_BYTES = 64 * 1024


class SharedBody:
    """Collects one body.  The descriptor is closed with the object, or by close()."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Add the next bytes.

        Raises:
            OSError: there is no memory left.
        """
        view = memoryview(chunk)
        while view:
            written = os.write(self._fd, view)
            self.size += written
            view = view[written:]

    @property
    def fd(self) -> int:
        """The descriptor, until close()."""
        return self._fd

    def finish(self) -> bytes:
        """Return a copy of the bytes so far."""
        return os.pread(self._fd, self.size, 0)

    def seal(self) -> None:
        """Let nothing change the body any more.  Call it before another process gets the descriptor."""
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)

    def map(self) -> memoryview:
        """Return the body; it stays in memory until nothing refers to the result."""
        return memoryview(map_body(self._fd))

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close the descriptor of a body that was never read: its client has left."""
        self.close()


def open_shared_body() -> SharedBody | None:
    """Return an empty body, None on a system without sealed memory, or without a free descriptor."""
    try:
        return SharedBody(os.memfd_create("request body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    except (AttributeError, OSError):
        return None


def map_body(fd: int) -> mmap.mmap:
    """Return the memory of a descriptor, read-only."""
    return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
