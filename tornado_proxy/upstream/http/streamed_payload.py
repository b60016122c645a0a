"""A request body that is sent while it arrives.

    add() ──> unread pieces ──> read(), called by libcurl ──> kept pieces, for a second attempt ──> dropped
                    └── none: libcurl pauses the upload, and the next add() resumes it

A request whose kept connection turns out to be closed is sent again on a new one (EasyHandle._seek), as long as all
that was read is still here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Bytes that are kept for a second attempt.  After so many nothing is kept: the connection has proved to be alive.
KEPT_BYTES = 256 * 1024

#: Bytes of the largest piece that others are added to: each piece costs some 200 bytes more, and a client can send its
#: body byte by byte.
_MAX_JOINED_BYTES = 16 * 1024


class StreamedPayload:
    """A body of `size` bytes.  The user of add() limits `unread_bytes`.

    Args:
        size: Bytes of the whole body; they are all added before end().
        on_read: Called when bytes have been read or dropped, from within libcurl: it must not call back into it.
    """

    __slots__ = (
        "_clock",
        "_dropped",
        "_ended",
        "_next",
        "_offset",
        "_on_read",
        "_pieces",
        "_resume",
        "_start",
        "_waiting",
        "read_at",
        "size",
        "unread_bytes",
    )

    def __init__(self, size: int, on_read: Callable[[], None]) -> None:
        self.size = size
        self.unread_bytes = 0
        #: Time of the last read, by the clock of attach(): the provider takes the request.
        self.read_at = 0.0
        self._clock: Callable[[], float] = lambda: 0.0
        self._on_read = on_read
        self._resume: Callable[[], None] | None = None
        self._pieces: deque[memoryview] = deque()
        #: The position of the first piece in the body; the index of the piece that is read next, and its read bytes.
        self._start = self._next = self._offset = 0
        self._waiting = self._ended = self._dropped = False

    @property
    def is_waiting(self) -> bool:
        """True while libcurl waits for bytes of the client."""
        return self._waiting

    @property
    def is_withheld(self) -> bool:
        """True until libcurl has all bytes: the provider cannot act on the request."""
        return not self._ended or self.unread_bytes > 0

    def attach(self, resume: Callable[[], None], clock: Callable[[], float]) -> None:
        """Call `resume` when bytes arrive for which libcurl waits; `clock` returns the time of reads."""
        self._resume, self._clock = resume, clock

    def add(self, piece: bytes | memoryview) -> None:
        """Add the next bytes; no effect after drop()."""
        if self._dropped or not piece:
            return
        if self._pieces and len(self._pieces[-1]) + len(piece) <= _MAX_JOINED_BYTES:
            self._join(piece)
        else:
            self._pieces.append(memoryview(piece))
        self.unread_bytes += len(piece)
        self._wake()

    def end(self) -> None:
        """Note that all bytes have been added."""
        self._ended = True
        self._wake()

    def read(self, limit: int) -> bytes | None:
        """Return the next bytes, at most `limit`; b"" at the end, None if they have not arrived."""
        if self._next == len(self._pieces):
            if self._ended:
                return b""
            self._waiting = True
            return None
        piece = self._pieces[self._next]
        data = bytes(piece[self._offset : self._offset + limit])
        self._offset += len(data)
        self.unread_bytes -= len(data)
        if self._offset == len(piece):
            self._next, self._offset = self._next + 1, 0
        self._forget()
        self.read_at = self._clock()
        self._on_read()
        return data

    def rewind(self, position: int) -> bool:
        """Continue at byte `position`, because the request is sent again; return False if that is not kept."""
        if position < self._start or self._dropped:
            return False
        self._next = 0
        left = position - self._start
        while left and left >= len(self._pieces[self._next]):
            left -= len(self._pieces[self._next])
            self._next += 1
        self._offset = left
        self.unread_bytes = sum(map(len, self._pieces)) - (position - self._start)
        return True

    def drop(self) -> None:
        """Drop the bytes, and those that are added later: the provider does not need them."""
        if self._dropped:
            return
        self._dropped, self._waiting, self._resume = True, False, None
        self._pieces.clear()
        self._next = self._offset = self.unread_bytes = 0
        self._on_read()

    def _join(self, piece: bytes | memoryview) -> None:
        """Add the bytes to the last piece."""
        last = self._pieces[-1]
        if self._next == len(self._pieces):  # it has been read
            self._next, self._offset = self._next - 1, len(last)
        self._pieces[-1] = memoryview(b"".join((last, piece)))

    def _forget(self) -> None:
        """Drop the bytes that were read, once they are more than is kept."""
        read_bytes = sum(map(len, list(self._pieces)[: self._next]))
        if self._start == 0 and read_bytes <= KEPT_BYTES:
            return
        for _ in range(self._next):
            self._start += len(self._pieces.popleft())
        self._next = 0

    def _wake(self) -> None:
        if self._waiting and self._resume is not None:
            self._waiting = False
            self._resume()
