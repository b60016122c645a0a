"""Hides the usage that was asked for on a client's behalf, so that the stream is what it would have been without.

    data: {..., "choices":[], "usage":{...}}     the whole event goes
    data: {..., "usage":null}                    the member goes, with its comma
    anything else                                passes untouched

Usage on a chunk with choices passes: hosts that put it there do so without being asked, and a client of theirs expects
it.  Nothing is written again: bytes are cut out or pass.  An event whose usage cannot be told apart for certain passes
as it is.  What is held is at most one unfinished event.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block

#: The member with the comma before it, or after it where it is the first.  Quotation marks inside JSON text are
#: escaped, so that this can match members only.
_NULL_MEMBER = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])|(?<=\{)\s*"usage"\s*:\s*null\s*,')
_HINT = b'"usage"'
#: The member as OpenAI writes it.
_USUAL = b',"usage":null'


class _Chunk(msgspec.Struct):
    usage: Any = msgspec.UNSET
    choices: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class UsageHider:
    """A ResponseEdit for chat streams."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._open = True

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give all whole events among them, edited."""
        if not self._open:
            return data
        try:
            return b"".join([_edited(block) for block in self._splitter.feed(data)])
        except SseOverflow:
            # Not a chat stream as we know it: from here on it passes as it comes.
            self._open = False
            return self._splitter.rest() + data

    def close(self) -> bytes:
        """An unfinished last event, which may still be one that is to be hidden."""
        rest = self._splitter.rest()
        return _edited(rest) if rest else b""


def _edited(block: bytes) -> bytes:
    if _HINT not in block:
        return block
    usual = _cut_usual(block)
    if usual is not None:
        return usual
    try:
        chunk = _CHUNK.decode(parse_block(block).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return block
    if isinstance(chunk.usage, dict) and chunk.choices == []:
        return b""
    if chunk.usage is None:
        cut, found = _NULL_MEMBER.subn(b"", block)
        return cut if found == 1 else block
    return block


def _cut_usual(block: bytes) -> bytes | None:
    """The block without its null member where that is plain to see, several times faster than by parsing it.

    What is cut stands on the outermost level if the one closing brace behind it ends the event.
    """
    start = block.find(_USUAL)
    end = start + len(_USUAL)
    if start < 0 or block.count(_HINT) != 1 or not block.startswith(b"data: {") or block.count(b"\n") != 2:
        return None
    if not block.endswith(b"}\n\n") or block.count(b"}", end) != 1 or block[end : end + 1] not in (b",", b"}"):
        return None
    return block[:start] + block[end:]
