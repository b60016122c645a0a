"""Reads usage from the event stream of a message.

    message_start.message.usage     the input, final in most streams; the output is provisional
    content_block_delta             most bytes of a stream: not parsed, only its text is measured for an estimate
    message_delta.usage             cumulative: each member that is not null replaces the earlier value
    message_stop                    the end
    error                           replaces the rest of the stream

Values of message_delta are never added and the larger is never taken: with server tools the input grows during the
stream, after a compaction it shrinks, and 0 is a value as well.  Unknown events are ignored.

Estimates: the output is the last one that message_delta stated, plus the text after it by the rule of
token_estimate.py.  The text is the last JSON string of each delta: text, thinking, signature or partial tool input, as
written.  Signatures count because thinking that is not shown is charged too.
Source: Anthropic API reference, "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.anthropic.messages.report import estimate_message, report_message
from tornado_proxy.providers.shared import token_estimate
from tornado_proxy.providers.shared.json_values import as_object, as_text, decode_object, read_count
from tornado_proxy.providers.shared.usage_report import merge_reports, with_fault
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: How blocks of the one event begin that is not parsed.
_DELTA = b"event: content_block_delta"


class _Block(msgspec.Struct):
    """The members of a content block that are read.  Results of server tools, which can be large, are skipped."""

    type: Any = None
    source: Any = msgspec.field(default=None, name="from")
    to: Any = None
    trigger: Any = None


class _Event(msgspec.Struct):
    """The members of an event that are read."""

    type: Any = None
    message: Any = None
    delta: Any = None
    usage: Any = None
    content_block: _Block | None = None


_EVENT = msgspec.json.Decoder(_Event)


class _Message:
    """One message of a stream, as far as it has arrived.

    `members` are those of message_start, with later values.  `stated_output` is the output of the last message_delta,
    None before the first; `text_bytes` are the bytes of text after it.
    """

    __slots__ = ("content", "ended", "members", "stated_output", "text_bytes", "usage")

    def __init__(self, members: Mapping[str, object]) -> None:
        self.content: list[dict[str, object]] = []
        self.members: dict[str, object] = {**members, "content": self.content}
        self.usage: Mapping[str, object] = as_object(members.get("usage"))
        self.text_bytes = 0
        self.stated_output: int | None = None
        self.ended = False

    def apply_delta(self, event: _Event) -> None:
        """Apply a message_delta."""
        delta = as_object(event.delta)
        for name in ("stop_reason", "stop_details", "container"):
            if delta.get(name) is not None:
                self.members[name] = delta[name]
        if isinstance(event.usage, dict):
            self.usage = merge_usage(self.usage, event.usage)
            self.stated_output = read_count(self.usage, "output_tokens", [])
            # The stated output covers all text so far.
            self.text_bytes = 0
        if delta.get("stop_reason") is not None:
            self.ended = True

    def report(self, request: RequestFacts) -> UsageReport:
        """Return the stated usage of an ended message, else an estimate."""
        if self.ended and self.stated_output is not None:
            return report_message(self.members, self.usage, request)
        limit = request.work.output_tokens
        output = token_estimate.estimate_output(self.text_bytes, limit, self.stated_output or 0)
        if self.stated_output is None:
            # message_start states a few tokens of output in advance; their text can be among the bytes received.
            output = max(output, read_count(self.usage, "output_tokens", []))
        return estimate_message(request, self.members, self.usage, output)


class MessageStreamReader:
    """Reads the usage of a streamed message.  If a body contains several messages, each counts once by its id."""

    object_id: str | None = None

    def __init__(self, facts: RequestFacts) -> None:
        self._facts = facts
        self._blocks = TolerantSseSplitter()
        self._messages: dict[str | None, _Message] = {}
        self._current: _Message | None = None
        self._failed = False

    def feed(self, data: bytes) -> None:
        """Read the next body bytes."""
        for block in self._blocks.feed(data):
            # Deltas are most events of a stream, and parsing them costs far more than measuring their text.
            if block.startswith(_DELTA) and self._current is not None:
                self._current.text_bytes += measure_text(block)
            else:
                self._read(block)

    def close(self, *, complete: bool) -> None:
        """Read a last event without a blank line after it.

        The end of a complete body also ends its message, if message_delta has stated usage.
        """
        self._read(self._blocks.rest())
        if complete and not self._failed and self._current is not None:
            self._current.ended = True

    def result(self) -> UsageReport:
        """Return the final usage, or an estimate if the stream broke off."""
        report = replace(self._report(), failed=self._failed)
        fault = "an event of the stream is too large to be read"
        return with_fault(report, fault) if self._blocks.overflowed else report

    def _report(self) -> UsageReport:
        if self._messages:
            return merge_reports([message.report(self._facts) for message in self._messages.values()], named_by=-1)
        if self._failed:
            return UsageReport(basis=Basis.FREE)  # an error before any message: no work was done
        return estimate_message(self._facts, {}, {}, 0)

    def _read(self, block: bytes) -> None:
        event = _decode(parse_block(block).data)
        match event.type:
            case "message_start":
                self._start(as_object(event.message))
            case "message_delta":
                self._ensure_message().apply_delta(event)
            case "message_stop":
                self._ensure_message().ended = True
            case "content_block_start":
                # report_message() needs to know if there is output after the last fallback block, and what those say.
                block_start = event.content_block or _Block()
                members = {"type": block_start.type, "from": block_start.source, "to": block_start.to}
                self._ensure_message().content.append({**members, "trigger": block_start.trigger})
            case "content_block_delta":
                self._ensure_message().text_bytes += measure_text(block)
            case "error":
                self._failed = True

    def _start(self, members: Mapping[str, object]) -> _Message:
        # A message that starts again under the same id replaces the first, so that it is charged once.
        message = self._current = self._messages[as_text(members.get("id"))] = _Message(members)
        return message

    def _ensure_message(self) -> _Message:
        """Return the current message; start one without members if message_start is missing."""
        return self._start({}) if self._current is None else self._current


def measure_text(block: bytes) -> int:
    """Return the bytes of the last JSON string of a content_block_delta block, as written; 0 if it has none.

    Quotation marks inside a string are escaped, so the marks around a `:` always belong to a member.
    """
    end = block.rfind(b'"')
    start = block.rfind(b'":"', 0, end)
    if start >= 0:
        return end - start - 3
    start = block.rfind(b'": "', 0, end)
    return end - start - 4 if start >= 0 else 0


def merge_usage(usage: Mapping[str, object], later: Mapping[str, object]) -> dict[str, object]:
    """Return `usage` with the members of `later`.  Objects are merged by member; null leaves the earlier value."""
    merged = dict(usage)
    for name, value in later.items():
        before = merged.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name] = {**before, **{inner: entry for inner, entry in value.items() if entry is not None}}
        elif value is not None:
            merged[name] = value
    return merged


def _decode(data: bytes) -> _Event:
    """Return the event, an empty one if `data` is not the JSON of one."""
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = decode_object(data) or {}  # not strictly valid JSON
    try:
        return msgspec.convert(event, _Event)
    except msgspec.ValidationError:
        return _Event()
