"""Usage readers of responses that contain audio, images or transcripts.

Each reader finds the JSON that can state usage, or knows that there is none, and passes it to a function of its
endpoint.  Without usage that function gets a number of bytes, which an estimate can use: those of the text in a JSON
response, those of the whole response otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.openai.shared.base64_truncation import Base64Truncator
from tornado_proxy.providers.openai.shared.usage_report import with_fault
from tornado_proxy.providers.shared.json_skimmer import JsonSkimmer, Shape
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.wire.sse import TolerantSseSplitter, parse_block

#: Bytes of a response that is decoded whole.  Of a larger one only the members of the endpoint's shape are read, while
#: it arrives: a response with log probabilities has 10 MB, one with images 100 MB.
MAX_DECODED_BYTES = 64 * 1024

#: The type of an event that ends a stream in place of its result.
_ERROR = b'"error"'

#: Returns the report of a JSON response, None if it states no usage.
ReadBody = Callable[[dict[str, object]], UsageReport | None]
#: Returns the report of a stream's events, None if they state no usage.  The flag is True if the stream is complete.
ReadEvents = Callable[[list[dict[str, object]], bool], UsageReport | None]
#: Returns the report of a response without usage from the number of its bytes, or of the bytes of its text.
ReportWithoutUsage = Callable[[int], UsageReport]
#: Returns the estimate of a complete JSON response that states no usage, from its members and the bytes of its text.
EstimateBody = Callable[[dict[str, object], int], UsageReport]


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
    """Reads a response that is one JSON object, of any size.

    `shape` names the members that `read_body` uses, and the strings that count as text if it returns None.
    `estimate_body` reports a complete object without usage; without it, `report_without_usage` reports that as well.
    """

    object_id: str | None = None

    def __init__(
        self,
        shape: Mapping[str, Shape],
        read_body: ReadBody,
        report_without_usage: ReportWithoutUsage,
        *,
        estimate_body: EstimateBody | None = None,
    ) -> None:
        self._read_body = read_body
        self._estimate_body = estimate_body
        self._report_without_usage = report_without_usage
        self._skimmer = JsonSkimmer(shape)
        self._response_bytes = 0
        self._body: bytearray | None = bytearray()  # None once the response is too large to be decoded whole

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        self._response_bytes += len(data)
        if self._body is None:
            self._skimmer.feed(data)
            return
        self._body += data
        if len(self._body) > MAX_DECODED_BYTES:
            self._skim()

    def close(self, *, complete: bool) -> None:
        """End the body.  An incomplete one is no JSON object, so result() finds out."""

    def result(self) -> UsageReport:
        """Return the report of the body, else the report without usage."""
        body = self._skimmer.result() if self._body is None else decode_object(bytes(self._body))
        report = None if body is None else self._read_body(body)
        if report is not None:
            return report
        if self._body is not None:
            self._skim()
        # The structure of JSON is no output; but of a response that is no JSON all that is known is its length.
        text_bytes = self._skimmer.text_bytes if self._skimmer.started else self._response_bytes
        if body is not None and self._estimate_body is not None:
            return self._estimate_body(body, text_bytes)
        report = self._report_without_usage(text_bytes)
        return report if body is not None else with_fault(report, "the response is not a complete JSON object")

    def _skim(self) -> None:
        body, self._body = self._body, None
        self._skimmer.feed(bytes(body or b""))


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
