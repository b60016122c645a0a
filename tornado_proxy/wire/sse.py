"""Server-sent events: bytes in, raw blocks or parsed events out.  Incremental and sans-I/O.

    bytes, split anywhere ── SseSplitter.feed ──> raw blocks, each with its closing blank line
                             SseSplitter.whole    the same in one piece, for those who cut by themselves with block_end
                             SseBlocks            both for a reader of usage, which must not fail
    raw block ── parse_block ──> SseEvent

Joining all raw blocks and `rest()` gives the input again, byte for byte.

Source: WHATWG HTML, section "Interpreting an event stream".  Lines end at LF, CRLF or CR and nowhere else: `splitlines`
would cut at U+2028 and U+0085, which may stand raw in JSON.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

#: Bytes of one event.  The largest known are whole base64 images of some 10 MB.
MAX_EVENT_BYTES = 64 * 1024 * 1024

#: The end of a block: a line end and an empty line.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseOverflow(Exception):
    """One event has grown past MAX_EVENT_BYTES without an end."""


class SseEvent(NamedTuple):
    """One event: its `event` field (None where it has none) and its data lines, joined with LF.

    A tuple, because one is made for each chunk of each stream: a frozen dataclass takes three times as long to make.
    """

    event: bytes | None
    data: bytes


class SseSplitter:
    """Cuts a byte stream into raw event blocks."""

    __slots__ = ("_held", "_held_bytes")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the blocks that they complete.

        Raises:
            SseOverflow: an event is larger than MAX_EVENT_BYTES; `data` was not taken, `rest()` has what came before.
        """
        return _cut(self.whole(data))

    def whole(self, data: bytes) -> bytes:
        """Take the next bytes; give the blocks that they complete in one piece.  Raises as feed() does."""
        if self._held_bytes > MAX_EVENT_BYTES:
            raise SseOverflow(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        if self._held:
            seam = self._held[-1][-3:] + data
            if b"\n\n" not in seam and b"\r" not in seam:
                # A large event in many pieces: joining them once, at its end, keeps its cost in proportion.
                self._hold(data)
                return b""
            data = b"".join([*self._held, data])
            self._held = []
            self._held_bytes = 0
        end = _end_of_blocks(data)
        if end < len(data):
            self._hold(data[end:])
            return data[:end]
        return data

    def rest(self) -> bytes:
        """What has come since the last complete block; emptied by the call."""
        tail = b"".join(self._held)
        self._held = []
        self._held_bytes = 0
        return tail

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)


class SseBlocks:
    """A splitter for those who only read along: an event too large to be held ends the reading, not the stream.

    `lost` is True from then on, and there are no more blocks.
    """

    __slots__ = ("_splitter", "lost")

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self.lost = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the blocks that they complete."""
        return _cut(self.whole(data))

    def whole(self, data: bytes) -> bytes:
        """Take the next bytes; give the blocks that they complete in one piece."""
        if self.lost:
            return b""
        try:
            return self._splitter.whole(data)
        except SseOverflow:
            self.lost = True
            self._splitter.rest()  # lets go of what is held
            return b""

    def rest(self) -> bytes:
        """What has come since the last complete block, b"" after a loss; emptied by the call."""
        return self._splitter.rest()


def block_end(blocks: bytes, start: int) -> int:
    """Where the block ends that begins at `start` of whole blocks."""
    end = blocks.find(b"\n\n", start) + 2
    if end >= 2 and blocks.find(b"\r", start, end) < 0:
        return end
    found = _BLANK_LINE.search(blocks, start)
    return len(blocks) if found is None else found.end()


def _end_of_blocks(text: bytes) -> int:
    """Where the last whole block of `text` ends.  A CR at the very end may be half of a CRLF: it waits."""
    if b"\r" not in text:
        end = text.rfind(b"\n\n") + 2
        if end < 2:
            return 0
        if text[end - 3 : end - 2] == b"\n":  # of an odd number of line ends the last belongs to the next block
            end -= (end - len(text[:end].rstrip(b"\n"))) % 2
        return end
    limit = len(text) - 1 if text.endswith(b"\r") else len(text)
    end = 0
    for match in _BLANK_LINE.finditer(text, 0, limit):
        end = match.end()
    return end


def _cut(blocks: bytes) -> list[bytes]:
    """Whole blocks, each by itself."""
    if not blocks:
        return []
    if b"\r" not in blocks:
        cut = blocks.split(b"\n\n")
        return [blocks] if len(cut) == 2 else [block + b"\n\n" for block in cut[:-1]]
    ends = [match.end() for match in _BLANK_LINE.finditer(blocks)]
    return [blocks[start:end] for start, end in pairwise((0, *ends))]


def parse_block(raw: bytes) -> SseEvent:
    """Read the `event` and `data` fields of a raw block; comments, `id` and `retry` are passed over.

    A block without its closing blank line is read as if it had one.
    """
    return _parse_usual(raw) or _parse_any(raw)


def _parse_usual(raw: bytes) -> SseEvent | None:
    """The two shapes that providers send, a data line alone or behind an event line; None for any other."""
    if b"\r" in raw or not raw.endswith(b"\n\n"):
        return None
    event: bytes | None = None
    start = 0
    if raw.startswith(b"event: "):
        start = raw.find(b"\n") + 1
        event = raw[7 : start - 1]
    if raw.startswith(b"data: ", start) and raw.find(b"\n", start) == len(raw) - 2:
        return SseEvent(event, raw[start + 6 : -2])
    return None


def _parse_any(raw: bytes) -> SseEvent:
    event: bytes | None = None
    data: list[bytes] = []
    for line in _lines(raw):
        if line.startswith(b"data:"):
            value = line[5:]
            data.append(value[1:] if value[:1] == b" " else value)
        elif line.startswith(b"event:"):
            event = line[6:].removeprefix(b" ")
        elif line == b"data":
            data.append(b"")
    return SseEvent(event, data[0] if len(data) == 1 else b"\n".join(data))


def _lines(raw: bytes) -> list[bytes]:
    text = raw.removeprefix(_BOM)
    return text.split(b"\n") if b"\r" not in text else _LINE_END.split(text)
