"""Cuts the contents of large parts out of a multipart body, so that only its structure has to be parsed.

    body      --b CRLF headers CRLF CRLF  20 MB of a recording  CRLF --b-- CRLF
    outline   --b CRLF headers CRLF CRLF  NUL                   CRLF --b-- CRLF

The parser searches a part for its end in one call, which holds the interpreter lock for 0.6 ms for each MB: 30 ms for
an image of 50 MB.  Here the search goes in steps, between which other threads run: call it in a thread.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass

#: Bytes of a body that is parsed as it is, and of the smallest content that is cut.
MAX_PARSED_BYTES, MIN_CONTENT_BYTES = 64 * 1024, 4 * 1024

#: Bytes that are searched in one call: 0.2 ms.
_STEP_BYTES = 256 * 1024

#: In place of a content.  No boundary has this byte (RFC 2046 section 5.1.1), so no new delimiter results.
_PLACEHOLDER = b"\0"

#: A body, which may be in memory that processes share.
Body = bytes | mmap.mmap

_HEADERS_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class FormOutline:
    """The rest of a multipart body: its bytes, and the place after each placeholder with the bytes that are missing."""

    text: bytes
    cuts: tuple[tuple[int, int], ...] = ()

    def find_in_body(self, position: int) -> int:
        """Return the position in the body of one in `text`."""
        return position + sum(size for place, size in self.cuts if place <= position)


def make_form_outline(body: Body, boundary: bytes, max_parts: int, max_headers_bytes: int) -> FormOutline | None:
    """Return the outline of a body; None if a large one has more than `max_parts` delimiters, or texts like them.

    The parser rejects headers of more than `max_headers_bytes`, so that later bytes of a part are content or make no
    difference.
    """
    if len(body) <= MAX_PARSED_BYTES:
        return FormOutline(bytes(body))
    pieces: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    kept = length = begin = 0
    for count, delimiter in enumerate(_find_all(body, b"\r\n--" + boundary)):
        if count == max_parts:
            return None
        limit = begin + max_headers_bytes
        headers_end = body.find(_HEADERS_END, begin, min(delimiter, limit))
        start = limit if headers_end < 0 else headers_end + len(_HEADERS_END)
        if delimiter - start > MIN_CONTENT_BYTES:
            pieces += (body[kept:start], _PLACEHOLDER)
            length += start - kept + len(_PLACEHOLDER)
            cuts.append((length, delimiter - start - len(_PLACEHOLDER)))
            kept = delimiter
        begin = delimiter
    pieces.append(body[kept:])
    return FormOutline(b"".join(pieces), tuple(cuts))


def _find_all(body: Body, delimiter: bytes) -> Iterator[int]:
    """Yield the position of each delimiter."""
    overlap = len(delimiter) - 1
    start = 0
    while start < len(body):
        end = start + _STEP_BYTES
        at = body.find(delimiter, start, end + overlap)
        if at >= 0:
            yield at
        start = end if at < 0 else at + len(delimiter)
        time.sleep(0)  # other threads may have the interpreter lock: without it, it stays here for 5 ms
