"""Usage readers of responses that contain audio, images or transcripts.

Each reader finds the JSON that can state usage, or knows that there is none, and passes it to a function of its
endpoint.  Without usage that function gets the number of response bytes, which an estimate can use.
"""

from __future__ import annotations

from collections.abc import Callable

from tornado_proxy.domain.units import MIB
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.openai.shared.base64_truncation import Base64Truncator
from tornado_proxy.providers.openai.shared.usage_report import with_fault
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Bytes buffered of a truncated response.  Ten images with their prompts take some 100 KB after truncation.
MAX_BODY_BYTES = 8 * MIB

#: Returns the report of a JSON response, None if it states no usage.
ReadBody = Callable[[dict[str, object]], UsageReport | None]
#: Returns the report of a stream's events, None if they state no usage.  The flag is True if the stream is complete.
ReadEvents = Callable[[list[dict[str, object]], bool], UsageReport | None]
#: Returns the report of a response without usage from the number of its bytes.
ReportWithoutUsage = Callable[[int], UsageReport]


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


class JsonReader:
    """Reads a response that is one JSON object."""

    object_id: str | None = None

    def __init__(self, read_body: ReadBody, report_without_usage: ReportWithoutUsage) -> None:
        self._read_body = read_body
        self._report_without_usage = report_without_usage
        self._truncator = Base64Truncator()
        self._body = bytearray()
        self._response_bytes = 0

    def feed(self, data: bytes) -> None:
        """Buffer the next bytes without their long base64 strings.  Past MAX_BODY_BYTES only count them."""
        self._response_bytes += len(data)
        if len(self._body) <= MAX_BODY_BYTES:
            self._body += self._truncator.feed(data)

    def close(self, *, complete: bool) -> None:
        """End the body.  An incomplete one is no JSON object, so result() finds out."""

    def result(self) -> UsageReport:
        """Return the report of the body, else the report without usage."""
        body = decode_object(bytes(self._body))
        if body is None:
            report = self._report_without_usage(self._response_bytes)
            return with_fault(report, "the response is not a complete JSON object")
        return self._read_body(body) or self._report_without_usage(self._response_bytes)


class EventsReader:
    """Reads an SSE response; decodes only events of the types in `event_types`.

    Most bytes of such a stream are base64 of audio or images.  Event types contain a dot and base64 does not, so a
    search for the type in the raw block skips them without decoding.
    """

    object_id: str | None = None

    def __init__(
        self,
        event_types: tuple[bytes, ...],
        read_events: ReadEvents,
        report_without_usage: ReportWithoutUsage,
    ) -> None:
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
        report = self._read_events(self._events, self._complete) or self._report_without_usage(self._response_bytes)
        return with_fault(report, "an event of the response is too large") if self._blocks.overflowed else report

    def _read(self, block: bytes) -> None:
        if any(event_type in block for event_type in self._event_types):
            event = decode_object(parse_block(block).data)
            if event is not None and str(event.get("type")).encode() in self._event_types:
                self._events.append(event)
