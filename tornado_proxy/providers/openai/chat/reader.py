"""Reads the usage of a chat stream.

Usage stands in one of the last chunks: from OpenAI on one of its own with `choices: []`, from other hosts with the same
API on the last one with choices.  So it is read wherever it is an object, and the last one counts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.openai.chat.text_shape import TextShape, shape_of
from tornado_proxy.providers.openai.shared.text_report import estimate_text, report_text, with_fault, word
from tornado_proxy.providers.openai.shared.usage_report import decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, find_block_end, parse_block


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    audio: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    """What is looked at in a chunk; its other members are passed over unread.  A decode takes about 1 us."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: dict[str, Any] | None = None
    choices: list[_Choice] = []
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatStreamReader:
    """A UsageReader for chat streams."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._answer: dict[str, Any] = {}
        self._text_bytes = 0
        self._spoken = False
        self._begun = False
        self._refused = False
        self._shape: TextShape | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        blocks = self._blocks.feed_joined(data)
        start = 0
        while start < len(blocks):
            if self._shape is not None:
                start, text_bytes = self._shape.run(blocks, start)
                self._text_bytes += text_bytes
                if start == len(blocks):
                    return
            end = find_block_end(blocks, start)
            self._read(blocks[start:end])
            start = end

    def close(self, *, complete: bool) -> None:
        """Read a last event that has no blank line behind it."""
        self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """The usage that was stated last, else an estimate by the text that was seen."""
        report = report_text(self._facts, self._answer) or self._without_usage()
        return (
            with_fault(report, "an event of the stream is too large to be read") if self._blocks.overflowed else report
        )

    def _without_usage(self) -> UsageReport:
        if self._refused and not self._begun:
            return UsageReport(basis=Basis.FREE)  # an error in place of an answer: nothing was begun
        report = estimate_text(self._facts, self._text_bytes, self._answer)
        if self._spoken:
            return with_fault(report, "sound was made whose tokens were not reported", basis=Basis.UNSETTLED)
        return report

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        if not data.startswith(b"{"):
            return  # [DONE], or a comment
        chunk = _decode(data)
        if chunk is None:
            return
        self._note(chunk)
        self._shape = self._next_shape(block) if _is_plain(chunk) else None
        for choice in chunk.choices:
            if choice.delta is not None:
                self._text_bytes += _text_bytes(choice.delta)
                self._spoken = self._spoken or choice.delta.audio is not None

    def _next_shape(self, block: bytes) -> TextShape | None:
        if self._shape is not None and self._shape.fits(block):
            return self._shape
        return shape_of(block)

    def _note(self, chunk: _Chunk) -> None:
        if chunk.error is not None:
            self._refused = True
            return
        self._begun = True
        if chunk.id:
            self._answer["id"] = chunk.id
        if chunk.model:
            self._answer["model"] = chunk.model
        if chunk.service_tier:
            self._answer["service_tier"] = chunk.service_tier
        if chunk.usage:
            self._answer["usage"] = chunk.usage


def _is_plain(chunk: _Chunk) -> bool:
    """Whether a chunk holds one piece of text, and nothing that has to be looked at in the next of its shape."""
    if len(chunk.choices) != 1 or chunk.usage is not None or chunk.error is not None:
        return False
    delta = chunk.choices[0].delta
    return delta is not None and delta.refusal is None and delta.tool_calls is None and delta.audio is None


def _text_bytes(delta: _Delta) -> int:
    texts = [delta.content, delta.refusal]
    for call in delta.tool_calls or ():
        if call.function is not None:
            texts += (call.function.name, call.function.arguments)
    return sum(len(text.encode()) for text in texts if text)


def _decode(data: bytes) -> _Chunk | None:
    """A chunk; of one that another host shapes differently at least the names and the usage."""
    try:
        return _CHUNK.decode(data)
    except msgspec.ValidationError:
        chunk = decode_object(data) or {}
        usage = chunk.get("usage")
        return _Chunk(
            id=word(chunk, "id"),
            model=word(chunk, "model"),
            service_tier=word(chunk, "service_tier"),
            usage=usage if isinstance(usage, dict) else None,
            error=chunk.get("error"),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
