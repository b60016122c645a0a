"""The stream of a message.

    message_start.message.usage     the input side, final in most streams; output provisional
    content_block_delta             the mass of the stream: not parsed, its text is measured for an estimate
    message_delta.usage             cumulative: each member that is there and not null takes the earlier one's place
    message_stop                    the end
    error                           in place of the rest

Never add what message_delta says, never take the larger: with server tools the input grows in between, after a
compaction it shrinks, and a 0 is a statement too.  Unknown events pass.

Estimates: output is what message_delta stated last, and what came after it by the rule of thumb of
token_estimate.py, whose bytes are those of the last JSON string of each delta: text, thinking, signature or partial
tool input, as written.  A signature is counted because it stands for thinking that is not shown.
Source: Anthropic API reference, "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.messages.report import combine, estimate_message, report_message, word
from tornado_proxy.providers.anthropic.messages.usage import count_of
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

_DELTA = b"event: content_block_delta"


class _Block(msgspec.Struct):
    """A content block as far as it is looked at; results of server tools, which may be large, are passed over."""

    type: Any = None
    to: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    message: Any = None
    delta: Any = None
    usage: Any = None
    content_block: _Block | None = None


_EVENT = msgspec.json.Decoder(_Event)


class _Message:
    """What a stream has said so far of one message."""

    __slots__ = ("ended", "facts", "stated_output", "text_bytes", "usage")

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = {**facts, "content": []}
        self.usage = _object(facts.get("usage"))
        self.text_bytes = 0
        self.stated_output: int | None = None
        self.ended = False

    def restate(self, event: _Event) -> None:
        """Take a message_delta."""
        delta = _object(event.delta)
        self.facts.update((name, delta[name]) for name in ("stop_reason", "container") if delta.get(name) is not None)
        if isinstance(event.usage, dict):
            self.usage = overwritten(self.usage, event.usage)
            self.stated_output = count_of(self.usage, "output_tokens", [])
            self.text_bytes = 0
        if delta.get("stop_reason") is not None:
            self.ended = True

    def report(self, request: RequestFacts) -> UsageReport:
        """What it used."""
        if self.ended and self.stated_output is not None:
            return report_message(self.facts, self.usage)
        seen = token_estimate.tokens_of(self.text_bytes)
        output = max(seen, count_of(self.usage, "output_tokens", []))
        if self.stated_output is not None:
            output = self.stated_output + seen
        return estimate_message(request, self.facts, self.usage, output)


class MessageStreamReader:
    """Reads the usage of a streamed message; should a body hold several, the usage of each by its id."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._messages: dict[str | None, _Message] = {}
        self._current: _Message | None = None
        self._failed = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        for block in self._blocks.feed(data):
            if block.startswith(_DELTA) and self._current is not None:
                self._current.text_bytes += text_length(block)
            else:
                self._read(block)

    def close(self, *, complete: bool) -> None:
        """Read a last event that has no blank line behind it.

        A body that came to its proper end has ended its message too, once message_delta has stated usage.
        """
        self._read(self._blocks.rest())
        if complete and not self._failed and self._current is not None:
            self._current.ended = True

    def result(self) -> UsageReport:
        """The final usage; where the stream broke off, an token_estimate."""
        report = self._report()
        if not self._blocks.overflowed:
            return report
        return replace(report, faults=(*report.faults, "an event of the stream is too large to be read"))

    def _report(self) -> UsageReport:
        if self._messages:
            return combine([message.report(self._facts) for message in self._messages.values()])
        if self._failed:
            return UsageReport(basis=Basis.FREE)  # an error in place of a message: nothing was begun
        return estimate_message(self._facts, {}, {}, 0)

    def _read(self, block: bytes) -> None:
        event = _decode(parse_block(block).data)
        match event.type:
            case "message_start":
                self._start(_object(event.message))
            case "message_delta":
                self._message().restate(event)
            case "message_stop":
                self._message().ended = True
            case "content_block_start":
                block_start = event.content_block or _Block()
                self._message().facts["content"].append({"type": block_start.type, "to": block_start.to})
            case "content_block_delta":
                self._message().text_bytes += text_length(block)
            case "error":
                self._failed = True

    def _start(self, message: Mapping[str, Any]) -> None:
        self._current = self._messages[word(message, "id")] = _Message(message)

    def _message(self) -> _Message:
        """The message that an event is about; its start may be missing."""
        if self._current is None:
            self._start({})
        assert self._current is not None
        return self._current


def text_length(block: bytes) -> int:
    """Bytes of the last JSON string of a content_block_delta block, as written; 0 where there is none.

    Quotation marks inside a string are escaped, so that the marks around `:` can only be those of a member.
    """
    end = block.rfind(b'"')
    start = block.rfind(b'":"', 0, end)
    if start >= 0:
        return end - start - 3
    start = block.rfind(b'": "', 0, end)
    return end - start - 4 if start >= 0 else 0


def overwritten(usage: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """`usage` with each member that `later` states; objects in it member by member, null states nothing."""
    merged = dict(usage)
    for name, value in later.items():
        before = merged.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name] = {**before, **{inner: one for inner, one in value.items() if one is not None}}
        elif value is not None:
            merged[name] = value
    return merged


def _decode(data: bytes) -> _Event:
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Event()


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
