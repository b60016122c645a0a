"""Reads the usage of a chat stream.

OpenAI states usage in one of the last chunks, with `choices: []`; other hosts of the same API state it in the last
chunk with choices.  So usage is read from every chunk in which it is an object, and the last one counts.

Source: OpenAI API reference, "The chat completion chunk object".
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.openai.chat.text_shape import TextShape, find_shape
from tornado_proxy.providers.openai.shared.text_usage import estimate_text, report_text
from tornado_proxy.providers.shared.json_values import as_text, decode_object
from tornado_proxy.providers.shared.usage_report import with_fault
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
    """The members of a chunk that the reader uses.  msgspec skips all others, so a decode takes about 1 us."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: dict[str, Any] | None = None
    choices: list[_Choice] = []
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class ChatStreamReader:
    """A UsageReader for chat streams."""

    __slots__ = (
        "_blocks",
        "_facts",
        "_failed",
        "_has_audio",
        "_response",
        "_shape",
        "_started",
        "_text_bytes",
        "object_id",
    )

    def __init__(self, facts: RequestFacts) -> None:
        self.object_id: str | None = None
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._response: dict[str, object] = {}
        self._text_bytes = 0
        self._has_audio = False
        self._started = False
        self._failed = False
        self._shape: TextShape | None = None

    def feed(self, data: bytes) -> None:
        """Read the chunks that the next bytes complete."""
        blocks = self._blocks.feed_joined(data)
        start = 0
        while start < len(blocks):
            if self._shape is not None:
                start, text_bytes = self._shape.count_run(blocks, start)
                self._text_bytes += text_bytes
                if start == len(blocks):
                    return
            end = find_block_end(blocks, start)
            self._read(blocks[start:end])
            start = end

    def close(self, *, complete: bool) -> None:
        """End the stream; read a last chunk without a blank line."""
        self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """Return the usage stated last, else an estimate by the text of the chunks."""
        report = report_text(self._facts, self._response) or self._report_without_usage()
        report = replace(report, failed=self._failed, names_object=False)
        return with_fault(report, "an event of the stream is too large") if self._blocks.overflowed else report

    def _report_without_usage(self) -> UsageReport:
        if self._failed and not self._started:
            # An error in place of the first chunk: the provider generated nothing and charges nothing.
            return UsageReport(basis=Basis.FREE)
        report = estimate_text(self._facts, self._text_bytes, self._response)
        if self._has_audio:
            # Transcripts say too little of the length of audio for an estimate.
            return with_fault(report, "the response contains audio without usage", basis=Basis.UNSETTLED)
        return report

    def _read(self, block: bytes) -> None:
        data = parse_block(block).data
        if not data.startswith(b"{"):
            return  # [DONE], or a comment
        chunk = _decode(data)
        if chunk is None:
            return
        self._update(chunk)
        self._shape = self._next_shape(block) if _has_text_only(chunk) else None
        for choice in chunk.choices:
            if choice.delta is not None:
                self._text_bytes += _count_text_bytes(choice.delta)
                self._has_audio = self._has_audio or choice.delta.audio is not None

    def _next_shape(self, block: bytes) -> TextShape | None:
        if self._shape is not None and self._shape.fits(block):
            return self._shape
        return find_shape(block)

    def _update(self, chunk: _Chunk) -> None:
        self._failed = self._failed or chunk.error is not None
        self._started = self._started or chunk.error is None
        stated = {"id": chunk.id, "model": chunk.model, "service_tier": chunk.service_tier, "usage": chunk.usage}
        self._response.update((name, value) for name, value in stated.items() if value)


def _has_text_only(chunk: _Chunk) -> bool:
    """Return True if the chunk contains one text and no member that the next chunk of its shape could change."""
    if len(chunk.choices) != 1 or chunk.usage is not None or chunk.error is not None:
        return False
    delta = chunk.choices[0].delta
    return delta is not None and delta.refusal is None and delta.tool_calls is None and delta.audio is None


def _count_text_bytes(delta: _Delta) -> int:
    texts = [delta.content, delta.refusal]
    for call in delta.tool_calls or ():
        if call.function is not None:
            texts += (call.function.name, call.function.arguments)
    return sum(len(text.encode()) for text in texts if text)


def _decode(data: bytes) -> _Chunk | None:
    """Return the chunk in `data`, None if it is not JSON.

    Of a chunk that another host shapes differently, at least the names and the usage are read.
    """
    try:
        return _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        chunk = decode_object(data)
    if chunk is None:
        return None
    try:
        return msgspec.convert(chunk, _Chunk)  # not strictly valid JSON
    except msgspec.ValidationError:
        usage = chunk.get("usage")
        return _Chunk(
            id=as_text(chunk.get("id")),
            model=as_text(chunk.get("model")),
            service_tier=as_text(chunk.get("service_tier")),
            usage=usage if isinstance(usage, dict) else None,
            error=chunk.get("error"),
        )
