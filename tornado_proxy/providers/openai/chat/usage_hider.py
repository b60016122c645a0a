"""Removes the usage that only the proxy asked for, so that the client receives the stream that it asked for.

    data: {..., "choices":[], "usage":{...}}     the event is removed
    data: {..., "error":{...}}               passes unchanged, usage included
    data: {..., "usage":null}                    the member is removed, with its comma
    anything else                                passes unchanged

Usage in a chunk with choices passes: hosts that put it there do so without a request for it, and their clients expect
it.  Bytes are removed or pass; nothing is encoded again.  An event whose usage is ambiguous passes unchanged.  At most
one unfinished event is buffered.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.wire.sse import SseOverflow, SseSplitter, parse_block, split_blocks

#: The member with the comma before it, or after it if it is the first one.  Quotation marks inside JSON text are
#: escaped, so that this matches members only.
_NULL_MEMBER = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])|(?<=\{)\s*"usage"\s*:\s*null\s*,')
_USAGE_NAME = b'"usage"'
#: The member as OpenAI writes it.
_USUAL_NULL_MEMBER = b',"usage":null'
#: The end of an event of which it is the last member, and the begin of the next one, as OpenAI writes them.
_USUAL_END, _NEXT_START = b',"usage":null}\n\n', b"data: {"
_JOINT, _JOINT_WITHOUT = _USUAL_END + _NEXT_START, b"}\n\n" + _NEXT_START
#: The member before the padding that hides the length of tokens, up to the begin of the next event.
_PADDED_MEMBER = re.compile(rb',"usage":null(?=,"obfuscation":"[^"\\{}]*"\}\n\n(?:data: \{|\Z))')


class _Chunk(msgspec.Struct):
    usage: Any = msgspec.UNSET
    choices: Any = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class UsageHider:
    """A ResponseEdit for chat streams."""

    def __init__(self) -> None:
        self._splitter = SseSplitter()
        self._editing = True

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the events that they complete, without usage."""
        if not self._editing:
            return data
        try:
            return _hide_usages(self._splitter.feed_joined(data))
        except SseOverflow:
            # An event above the limit is not of a chat stream.  Relay the rest unchanged rather than break it.
            self._editing = False
            return self._splitter.rest() + data

    def close(self) -> bytes:
        """End the stream; return an unfinished last event, without usage."""
        rest = self._splitter.rest()
        return _hide_usage(rest) if rest else b""


def _hide_usages(blocks: bytes) -> bytes:
    """Return complete events without usage."""
    if blocks.find(_USAGE_NAME) < 0:
        return blocks
    usual = _remove_usual_members(blocks)
    return b"".join([_hide_usage(block) for block in split_blocks(blocks)]) if usual is None else usual


def _remove_usual_members(blocks: bytes) -> bytes | None:
    """Return events without their null members; None if not all of them are written as OpenAI writes them.

    Most reads of a stream hold dozens of events, which differ in their text alone.  Each has two line ends and one such
    member, which ends it or comes before its padding.
    """
    if not blocks.startswith(_NEXT_START):
        return None
    if blocks.endswith(_USUAL_END):
        edited = blocks[: -len(_USUAL_END)].replace(_JOINT, _JOINT_WITHOUT) + b"}\n\n"
        events = (len(blocks) - len(edited)) // len(_USUAL_NULL_MEMBER)
    else:
        edited, events = _PADDED_MEMBER.subn(b"", blocks)
    return edited if blocks.count(b"\n") == 2 * events and blocks.count(_USAGE_NAME) == events else None


def _hide_usage(block: bytes) -> bytes:
    if block.find(_USAGE_NAME) < 0:
        return block
    usual = _remove_usual_member(block)
    if usual is not None:
        return usual
    data = parse_block(block).data
    try:
        chunk = _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        chunk = msgspec.convert(decode_object(data) or {}, _Chunk)
    # A host can report an error in the chunk that states usage: a client must see why its response ends.
    if isinstance(chunk.usage, dict) and chunk.choices == [] and chunk.error is None:
        return b""
    if chunk.usage is None:
        edited, matches = _NULL_MEMBER.subn(b"", block)
        # Two matches: one is deeper in the chunk, and removing both would change the client's data.
        return edited if matches == 1 else block
    return block


def _remove_usual_member(block: bytes) -> bytes | None:
    """Return the block without its null member; None if it is not written as OpenAI writes it.

    Several times faster than parsing the block.  The member is at the top level if the one closing brace after it
    ends the event.
    """
    start = block.find(_USUAL_NULL_MEMBER)
    end = start + len(_USUAL_NULL_MEMBER)
    if start < 0 or block.count(_USAGE_NAME) != 1 or not block.startswith(b"data: {") or block.count(b"\n") != 2:
        return None
    if not block.endswith(b"}\n\n") or block.count(b"}", end) != 1 or block[end : end + 1] not in (b",", b"}"):
        return None
    return block[:start] + block[end:]
