"""Takes the framing of HTTP's chunked coding out of a body, at a speed that keeps up with nginx.

Events hold no carriage return, so each `\\r\\nSIZE\\r\\n` in such a body is framing: one regular expression removes
them all, where a parser would make a step for each chunk.
"""

from __future__ import annotations

import re

#: A frame; one of size 0 is the body's end.
_FRAME = re.compile(rb"\r\n0*[1-9a-fA-F][0-9a-fA-F]*\r\n")
END = b"\r\n0\r\n\r\n"

#: Bytes of the longest frame: a size of eight digits between two line ends.
_LONGEST = 12


class Unchunker:
    """Feed it a chunked body; `ended` tells that the last chunk has come."""

    def __init__(self) -> None:
        self.ended = False
        self._held = b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """What `data` holds without framing; a frame that may be cut off at its end waits for the rest."""
        data = _FRAME.sub(b"", self._held + data)
        if data.endswith(END):
            self.ended = True
            self._held = b""
            return data[: -len(END)]
        at = data.find(b"\r", max(0, len(data) - _LONGEST))
        self._held = data[at:] if at >= 0 else b""
        return data[:at] if at >= 0 else data
