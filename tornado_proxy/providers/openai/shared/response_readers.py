"""Readers of answers that hold audio, images or transcripts.

Each knows how to get at the JSON that matters, or that there is none, and leaves what it means to a function.  What is
known of an answer without usage is the number of its bytes, which an estimate may use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.openai.shared.base64_truncation import Base64Truncator
from tornado_proxy.providers.openai.shared.usage_report import decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Bytes of a thinned answer that are kept; ten images with their prompts take some 100 KB.
MAX_BODY_BYTES = 8 * 1024 * 1024

#: What a JSON answer says, None where it says nothing of use.
FromBody = Callable[[dict[str, object]], UsageReport | None]
#: What the events of a stream say, and whether it came to its end.
FromEvents = Callable[[list[dict[str, object]], bool], UsageReport | None]
#: What is known without usage, from the number of bytes of the answer that were seen.
WithoutUsage = Callable[[int], UsageReport]


class OpaqueReader:
    """An answer that cannot state usage: its bytes are counted."""

    object_id: str | None = None

    def __init__(self, without_usage: WithoutUsage) -> None:
        self._without_usage = without_usage
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Count."""
        self._seen += len(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end: what was sent is what was made."""

    def result(self) -> UsageReport:
        """What is known without usage."""
        return self._without_usage(self._seen)


class JsonReader:
    """One JSON object, of which little is kept."""

    object_id: str | None = None

    def __init__(self, from_body: FromBody, without_usage: WithoutUsage) -> None:
        self._from_body = from_body
        self._without_usage = without_usage
        self._thinner = Base64Truncator()
        self._body = bytearray()
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._seen += len(data)
        if len(self._body) <= MAX_BODY_BYTES:
            self._body += self._thinner.feed(data)

    def close(self, *, complete: bool) -> None:
        """Nothing to end: a body that broke off is no JSON."""

    def result(self) -> UsageReport:
        """What the body says, else what is known without usage."""
        body = decode_object(bytes(self._body))
        if body is None:
            return _with_fault(self._without_usage(self._seen), "the answer is not a whole JSON object")
        return self._from_body(body) or self._without_usage(self._seen)


class EventsReader:
    """An SSE answer of which only events that hold one of `marks` are read.

    The mass of such a stream is base64 of audio or pictures, in which no mark can stand: each is the name of an event
    with a dot in it.
    """

    object_id: str | None = None

    def __init__(
        self,
        marks: tuple[bytes, ...],
        from_events: FromEvents,
        without_usage: WithoutUsage,
    ) -> None:
        self._marks = marks
        self._from_events = from_events
        self._without_usage = without_usage
        self._thinner = Base64Truncator()
        self._blocks = TolerantSseSplitter()
        self._events: list[dict[str, object]] = []
        self._seen = 0
        self._whole = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._seen += len(data)
        for block in self._blocks.feed(self._thinner.feed(data)):
            self._read(block)

    def close(self, *, complete: bool) -> None:
        """Read a last event without a blank line, if the stream came to its end."""
        self._whole = complete
        if complete:
            self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """What the events say, else what is known without usage."""
        report = self._from_events(self._events, self._whole) or self._without_usage(self._seen)
        return (
            _with_fault(report, "an event of the answer is too large to be read") if self._blocks.overflowed else report
        )

    def _read(self, block: bytes) -> None:
        if any(mark in block for mark in self._marks):
            event = decode_object(parse_block(block).data)
            if event is not None and str(event.get("type")).encode() in self._marks:
                self._events.append(event)


def _with_fault(report: UsageReport, fault: str) -> UsageReport:
    return replace(report, faults=(*report.faults, fault))
