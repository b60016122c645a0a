"""Chunks of a chat stream that differ by their text alone: counted where they lie, without being cut out or parsed.

    data: {"id":"c1",...,"choices":[{"index":0,"delta":{"content":"Hello"},...}],"obfuscation":"x9"}
    └──────────────────────────── head ───────────────────────────┘text└───────── tail ───────┘padding

They are nearly all of a stream, and a relay has to read along several hundred thousand of them a second.
"""

from __future__ import annotations

from typing import NamedTuple

#: What stands before the text of a chunk that holds nothing else, and before padding at its end.
_TEXT = b'"delta":{"content":"'
_PADDING = b'"obfuscation":"'

#: What ends a chunk behind its padding.
_END = b'"}\n\n'


class TextShape(NamedTuple):
    """What stands around the text of a chunk: `head` up to it, `tail` behind it, up to padding where there is some."""

    head: bytes
    tail: bytes
    padded: bool

    def run(self, blocks: bytes, start: int) -> tuple[int, int]:
        """Where a run of chunks of this shape that begins at `start` ends, and the bytes of text in it.

        A chunk with an escape in it ends the run, because its text is shorter than what is written.
        """
        head, tail, padded = self
        starts, find = blocks.startswith, blocks.find
        escape = find(b"\\", start)
        limit = len(blocks) if escape < 0 else escape
        text_bytes = 0
        while starts(head, start):
            text = start + len(head)
            text_end = find(b'"', text, limit)
            if not starts(tail, text_end):
                break
            end = text_end + len(tail)
            if padded:
                end = find(b'"', end)
                if not starts(_END, end):
                    break
                end += len(_END)
            text_bytes += text_end - text
            start = end
        return start, text_bytes

    def fits(self, block: bytes) -> bool:
        """Whether a chunk differs from this shape by what is in its text and padding alone, escapes or not."""
        return block.startswith(self.head) and self.tail in block


def shape_of(block: bytes) -> TextShape | None:
    """The shape of a chunk that holds one piece of text; None where it cannot be told for certain."""
    head, text, rest = block.partition(_TEXT)
    if not text or b"\\" in block or _TEXT in rest:
        return None
    tail, padding, _ = rest[rest.find(b'"') :].partition(_PADDING)
    return TextShape(head + text, tail + padding, bool(padding))
