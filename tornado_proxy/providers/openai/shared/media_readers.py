"""Usage readers of responses that contain audio or images, as they are or as events.

Each reader finds the JSON that can state usage, or knows that there is none, and passes it to a function of its
endpoint.  Without usage that function gets a number of bytes, which an estimate can use: those of the text of one type
of events, or those of the whole response.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.openai.shared.base64_truncation import Base64Truncator
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.providers.shared.response_readers import ReportWithoutUsage
from tornado_proxy.providers.shared.usage_report import with_fault
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: The type of an event that ends a stream in place of its result.
_ERROR = b'"error"'

#: Returns the report of a stream's events, None if they state no usage.  The flag is True if the stream is complete.
ReadEvents = Callable[[list[dict[str, object]], bool], UsageReport | None]


class OpaqueReader:
    """Reads a response that cannot state usage: it counts the bytes."""

    object_id: str | None = None

    def __init__(self, report_without_usage: ReportWithoutUsage) -> None:
        self._report_without_usage = report_without_usage
        self._response_bytes = 0

    def feed(self, data: bytes) -> None:
        """Count the next bytes."""
        self._response_bytes += len(data)

    def close(self, *, complete: bool) -> None:
        """End the body.  An incomplete one counts the bytes that arrived."""

    def result(self) -> UsageReport:
        """Return the report for the counted bytes."""
        return self._report_without_usage(self._response_bytes)


class EventsReader:
    """Reads an SSE response; decodes only events of the types in `event_types`.

    Most bytes of such a stream are base64 of audio or images.  Event types contain a dot and base64 does not, so a
    search for the type in the raw block skips them without decoding.  If `text_type` is given, an estimate counts the
    text of the deltas of that type instead of the bytes of the response.
    """

    object_id: str | None = None

    def __init__(
        self,
        event_types: tuple[bytes, ...],
        read_events: ReadEvents,
        report_without_usage: ReportWithoutUsage,
        *,
        text_type: bytes | None = None,
    ) -> None:
        self._text_type = text_type
        self._text_bytes = 0
        self._failed = False
        self._event_types = event_types
        self._read_events = read_events
        self._report_without_usage = report_without_usage
        self._truncator = Base64Truncator()
        self._blocks = TolerantSseSplitter()
        self._events: list[dict[str, object]] = []
        self._response_bytes = 0
        self._complete = False

    def feed(self, data: bytes) -> None:
        """Read the events that the next bytes complete."""
        self._response_bytes += len(data)
        for block in self._blocks.feed(self._truncator.feed(data)):
            self._read(block)

    def close(self, *, complete: bool) -> None:
        """End the stream; a last event without a blank line counts only if the stream is complete."""
        self._complete = complete
        if complete:
            self._read(self._blocks.rest())

    def result(self) -> UsageReport:
        """Return the report of the events, else the report without usage."""
        size = self._response_bytes if self._text_type is None else self._text_bytes
        report = self._read_events(self._events, self._complete) or self._report_without_usage(size)
        report = replace(report, failed=self._failed)
        return with_fault(report, "an event of the response is too large") if self._blocks.overflowed else report

    def _read(self, block: bytes) -> None:
        if self._text_type is not None and self._text_type in block:
            self._text_bytes += _count_delta_bytes(block, self._text_type)
        elif any(event_type in block for event_type in self._event_types):
            event = decode_object(parse_block(block).data)
            if event is not None and str(event.get("type")).encode() in self._event_types:
                self._events.append(event)
        elif _ERROR in block:
            self._failed = self._failed or (decode_object(parse_block(block).data) or {}).get("type") == "error"


def _count_delta_bytes(block: bytes, event_type: bytes) -> int:
    event = decode_object(parse_block(block).data) or {}
    delta = event.get("delta")
    return len(delta.encode()) if isinstance(delta, str) and event.get("type") == event_type.decode() else 0
