"""Remove the framing of HTTP's chunked coding from a body, fast enough for the streams of nginx.

Events hold no carriage return, so each `\\r\\nSIZE\\r\\n` in such a body is framing.  One regular expression removes
them all; a parser would take a step for each chunk.
"""

from __future__ import annotations

import re

#: The framing between chunks; a chunk of size 0 ends the body.
_FRAME = re.compile(rb"\r\n0*[1-9a-fA-F][0-9a-fA-F]*\r\n")
END = b"\r\n0\r\n\r\n"

#: Bytes of the longest framing: a size of eight digits between two line ends.
_MAX_FRAME_BYTES = 12


class ChunkDecoder:
    """Decodes a chunked body; `ended` is True after its last chunk."""

    def __init__(self) -> None:
        self.ended = False
        self._held = b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """Return `data` without framing; framing that may be cut off at its end is held for the next call."""
        data = _FRAME.sub(b"", self._held + data)
        if data.endswith(END):
            self.ended = True
            self._held = b""
            return data[: -len(END)]
        at = data.find(b"\r", max(0, len(data) - _MAX_FRAME_BYTES))
        self._held = data[at:] if at >= 0 else b""
        return data[:at] if at >= 0 else data
