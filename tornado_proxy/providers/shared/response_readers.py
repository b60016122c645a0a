"""Chooses the usage reader and the edit of a response, and reads a response that is one JSON object.

Some hosts send no Content-Type or a wrong one, so a stream of events is recognised by its first bytes, too:

    Content-Type text/event-stream                      a stream
    none, text/plain or application/octet-stream,       the first bytes decide: a field name and a colon, or a comment
      and the request asked for a stream
    otherwise                                           no stream

Source: WHATWG HTML, section 9.2.5 "Parsing an event stream"; a JSON object begins with a brace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import DeferredUsage, HttpEndpoint, ResponseEdit, ResponseHead, UsageReader
from tornado_proxy.providers.shared.free_reader import FreeReader
from tornado_proxy.providers.shared.json_skimmer import COUNT, JsonSkimmer, Shape
from tornado_proxy.providers.shared.json_values import decode_object
from tornado_proxy.providers.shared.usage_report import with_fault

_MEDIA_TYPE = "text/event-stream"
#: Media types that say nothing of a body.
_UNCERTAIN_MEDIA_TYPES = frozenset({"", "text/plain", "application/octet-stream"})
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
#: Bytes that may precede the first field: a byte order mark and empty lines.
_BEFORE = b"\xef\xbb\xbf\r\n"

#: Bytes of a JSON response that is decoded whole.  Of a larger one only the members of the endpoint's shape are read,
#: while it arrives: a response with log probabilities has 10 MB, one with images 100 MB.
MAX_DECODED_BYTES = 64 * 1024

#: Objects and lists of a decoded response whose text is counted.  Each takes a microsecond, and nothing else can run
#: meanwhile; a response of more of them repeats a request that was made for that.
MAX_SKIMMED_VALUES = 6000

#: Returns the report of a JSON response, None if it states no usage.
ReadBody = Callable[[dict[str, object]], UsageReport | None]
#: Returns the report of a response without usage from the number of its bytes, or of the bytes of its text.
ReportWithoutUsage = Callable[[int], UsageReport]
#: Returns the estimate of a complete JSON response that states no usage, from its members and the bytes of its text.
EstimateBody = Callable[[dict[str, object], int], UsageReport]


def make_usage_reader(source: HttpEndpoint | DeferredUsage, facts: RequestFacts, head: ResponseHead) -> UsageReader:
    """Return the reader of a response: a FreeReader for an error status or a free endpoint."""
    if source.reader is None or not 200 <= head.status < 300:
        return FreeReader()
    return source.reader(facts, head)


def choose_reader(
    facts: RequestFacts,
    head: ResponseHead,
    make_stream_reader: Callable[[], UsageReader],
    make_reader: Callable[[], UsageReader],
) -> UsageReader:
    """Return the reader of a response: of a stream if it is one, else the other."""
    if head.media_type == _MEDIA_TYPE:
        return make_stream_reader()
    if head.media_type in _UNCERTAIN_MEDIA_TYPES and _wants_stream(facts):
        return _SniffingReader(make_stream_reader, make_reader)
    return make_reader()


def choose_edit(
    facts: RequestFacts, head: ResponseHead, make_stream_edit: Callable[[], ResponseEdit]
) -> ResponseEdit | None:
    """Return the edit of a stream; an edit that changes nothing if the response turns out to be none."""
    if head.media_type == _MEDIA_TYPE:
        return make_stream_edit()
    is_uncertain = head.media_type in _UNCERTAIN_MEDIA_TYPES and _wants_stream(facts)
    return _SniffingEdit(make_stream_edit) if is_uncertain else None


def begins_like_stream(start: bytes) -> bool | None:
    """Return True if a body that begins with `start` is a stream of events, None if more bytes are needed."""
    text = start.lstrip(_BEFORE)
    if any(text.startswith(field) for field in _FIELDS):
        return True
    return None if any(field.startswith(text) for field in _FIELDS) else False


def _wants_stream(facts: RequestFacts) -> bool:
    """Return True if the client asked for a stream, or the proxy did on its behalf."""
    return facts.stream or facts.usage_injected


class JsonReader:
    """Reads a response that is one JSON object, of any size.

    `shape` names the members that `read_body` uses, and the strings that count as text if it returns None; if it names
    none, the whole response counts.
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
        self._shape = shape
        self._read_body = read_body
        self._estimate_body = estimate_body
        self._report_without_usage = report_without_usage
        self._response_bytes = 0
        self._body = bytearray()
        self._skimmer: JsonSkimmer | None = None  # set once the response is too large to be decoded whole

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        self._response_bytes += len(data)
        if self._skimmer is not None:
            self._skimmer.feed(data)
            return
        self._body += data
        if len(self._body) > MAX_DECODED_BYTES:
            self._skimmer = self._skim()

    def close(self, *, complete: bool) -> None:
        """End the body.  An incomplete one is no JSON object, so result() finds out."""

    def result(self) -> UsageReport:
        """Return the report of the body, else the report without usage."""
        body = decode_object(bytes(self._body)) if self._skimmer is None else self._skimmer.result()
        report = None if body is None else self._read_body(body)
        if report is not None:
            return report
        text_bytes = self._count_text()
        if body is not None and self._estimate_body is not None:
            return self._estimate_body(body, text_bytes)
        report = self._report_without_usage(text_bytes)
        return report if body is not None else with_fault(report, "the response is not a complete JSON object")

    def _count_text(self) -> int:
        """Return the length of the response's text, at most that of the whole response."""
        if not _names_text(self._shape):
            return self._response_bytes
        if self._skimmer is None and self._body.count(b"{") + self._body.count(b"[") > MAX_SKIMMED_VALUES:
            return self._response_bytes
        skimmer = self._skim() if self._skimmer is None else self._skimmer
        # The structure of JSON is no output; but of a response that is no JSON all that is known is its length.
        return skimmer.text_bytes if skimmer.started else self._response_bytes

    def _skim(self) -> JsonSkimmer:
        """Return a skimmer that has read the body so far, and drop the body."""
        skimmer = JsonSkimmer(self._shape)
        skimmer.feed(bytes(self._body))
        self._body = bytearray()
        return skimmer


def _names_text(shape: Shape) -> bool:
    """Return True if strings in `shape` count as text."""
    return any(map(_names_text, shape.values())) if isinstance(shape, Mapping) else shape is COUNT


class _SniffingReader:
    """A UsageReader that chooses another one by the first bytes."""

    def __init__(self, make_stream_reader: Callable[[], UsageReader], make_reader: Callable[[], UsageReader]) -> None:
        self._make_stream_reader = make_stream_reader
        self._make_reader = make_reader
        self._start = b""
        self._reader: UsageReader | None = None

    @property
    def object_id(self) -> str | None:
        """The id that the chosen reader has found."""
        return None if self._reader is None else self._reader.object_id

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        if self._reader is not None:
            self._reader.feed(data)
            return
        self._start += data
        is_stream = begins_like_stream(self._start)
        if is_stream is not None:
            self._choose(is_stream=is_stream)

    def close(self, *, complete: bool) -> None:
        """End the body."""
        self._choose(is_stream=False).close(complete=complete)

    def result(self) -> UsageReport:
        """Return the usage."""
        return self._choose(is_stream=False).result()

    def _choose(self, *, is_stream: bool) -> UsageReader:
        """Return the chosen reader; choose it if that has not been done."""
        if self._reader is None:
            self._reader = self._make_stream_reader() if is_stream else self._make_reader()
            start, self._start = self._start, b""
            self._reader.feed(start)
        return self._reader


class _SniffingEdit:
    """A ResponseEdit that edits a stream and passes anything else."""

    def __init__(self, make_stream_edit: Callable[[], ResponseEdit]) -> None:
        self._make_stream_edit = make_stream_edit
        self._start = b""
        self._decided = False
        self._edit: ResponseEdit | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; hold the first few until they decide."""
        if not self._decided:
            self._start += data
            is_stream = begins_like_stream(self._start)
            if is_stream is None:
                return b""
            data, self._start = self._start, b""
            self._decided = True
            self._edit = self._make_stream_edit() if is_stream else None
        return data if self._edit is None else self._edit.feed(data)

    def close(self) -> bytes:
        """End the body; return the bytes still held."""
        return self._start if self._edit is None else self._edit.close()
