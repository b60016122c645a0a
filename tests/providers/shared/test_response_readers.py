from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import ResponseHead, UsageReader
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP
from tornado_proxy.providers.shared.response_readers import JsonReader, begins_like_stream, choose_edit, choose_reader

STREAM, WHOLE = RequestFacts(stream=True), RequestFacts()


class NamedReader:
    """A reader that shows its kind and the bytes that it has read."""

    object_id: str | None = None

    def __init__(self, kind: str) -> None:
        self._kind, self._body = kind, b""

    def feed(self, data: bytes) -> None:
        """Keep the next bytes."""
        self._body += data

    def close(self, *, complete: bool) -> None:
        """End the body."""

    def result(self) -> UsageReport:
        """Return a report whose usage is the kind and the body."""
        return UsageReport(raw=f"{self._kind}: {self._body.decode()}")


def reader(facts: RequestFacts, media_type: str) -> UsageReader:
    def make(kind: str) -> UsageReader:
        return NamedReader(kind)

    return choose_reader(facts, ResponseHead(200, media_type), lambda: make("stream"), lambda: make("whole"))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"data: {}", True),
        (b"event: x", True),
        (b": ping", True),
        (b"\xef\xbb\xbf\r\nid: 5", True),
        (b"retry:1", True),
        (b"", None),
        (b"\n", None),
        (b"eve", None),
        (b'{"data": 1}', False),
        (b"dates", False),
        (b"<html>", False),
    ],
)
def test_a_field_name_and_a_colon_begin_a_stream(start: bytes, expected: bool | None) -> None:
    assert begins_like_stream(start) is expected


@pytest.mark.parametrize(
    ("facts", "media_type", "body", "kind"),
    [
        pytest.param(WHOLE, "text/event-stream", b"{}", "stream", id="the media type says so"),
        pytest.param(STREAM, "", b"data: 1", "stream", id="no media type"),
        pytest.param(STREAM, "text/plain", b"event: x", "stream", id="text/plain"),
        pytest.param(RequestFacts(usage_injected=True), "", b"data: 1", "stream", id="the proxy asked for a stream"),
        pytest.param(STREAM, "application/json", b'{"a":1}', "whole", id="JSON in response to a stream request"),
        pytest.param(STREAM, "", b"eve", "whole", id="too short to tell"),
        pytest.param(WHOLE, "", b"data: 1", "whole", id="no stream was asked for"),
    ],
)
def test_the_reader_is_chosen_by_media_type_request_and_first_bytes(
    facts: RequestFacts, media_type: str, body: bytes, kind: str
) -> None:
    assert read_three_ways(lambda: reader(facts, media_type), body).raw == f"{kind}: {body.decode()}"


def test_an_empty_body_has_a_report() -> None:
    assert read(reader(STREAM, ""), []).raw == "whole: "


class Upper:
    def feed(self, data: bytes) -> bytes:
        return data.upper()

    def close(self) -> bytes:
        return b"!"


@pytest.mark.parametrize(
    ("facts", "media_type", "body", "expected"),
    [
        pytest.param(STREAM, "text/event-stream", b"abc", b"ABC!", id="a stream"),
        pytest.param(STREAM, "", b"data: abc", b"DATA: ABC!", id="a stream without a media type"),
        pytest.param(STREAM, "text/plain", b"dates", b"dates", id="no stream"),
        pytest.param(STREAM, "", b"eve", b"eve", id="too short to tell"),
    ],
)
def test_only_a_stream_is_edited(facts: RequestFacts, media_type: str, body: bytes, expected: bytes) -> None:
    for size in (1, 4, 100):
        edit = choose_edit(facts, ResponseHead(200, media_type), Upper)
        assert edit is not None
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert b"".join(edit.feed(chunk) for chunk in chunks) + edit.close() == expected


def test_a_response_to_a_request_without_a_stream_has_no_edit() -> None:
    assert choose_edit(WHOLE, ResponseHead(200, ""), Upper) is None


def report_without_usage(response_bytes: int) -> UsageReport:
    return UsageReport(basis=Basis.ESTIMATED, raw=f"{response_bytes} bytes")


def json_reader() -> UsageReader:
    def read_body(body: dict[str, object]) -> UsageReport | None:
        return UsageReport(basis=Basis.REPORTED, raw=str(body["usage"])) if "usage" in body else None

    return JsonReader({"usage": KEEP, "text": COUNT}, read_body, report_without_usage)


def basis_and_raw(make: Callable[[], UsageReader], data: bytes) -> tuple[Basis, str | None]:
    report = read_three_ways(make, data)
    return report.basis, report.raw


def test_a_json_response_is_reported_by_its_body() -> None:
    assert basis_and_raw(json_reader, b'{"usage": 7}') == (Basis.REPORTED, "7")


def test_a_json_response_without_usage_is_reported_by_the_length_of_its_text() -> None:
    assert basis_and_raw(json_reader, b'{"a": "xxxx", "text": "abcde"}') == (Basis.ESTIMATED, "5 bytes")


def test_a_response_that_is_not_json_is_reported_by_its_length() -> None:
    assert basis_and_raw(json_reader, b"<html>") == (Basis.ESTIMATED, "6 bytes")


def test_a_json_response_that_is_cut_off_has_a_fault() -> None:
    report = read(json_reader(), [b'{"usage": 7, "text": "abc'], complete=False)

    assert (report.basis, report.raw) == (Basis.ESTIMATED, "3 bytes")
    assert report.faults == ("the response is not a complete JSON object",)


@pytest.mark.parametrize("chunk_bytes", [20_000, 1_000_000])
def test_usage_of_a_large_response_is_read_in_bounded_memory(chunk_bytes: int) -> None:
    text = b'{"text":"' + b"so on " * 3_000_000 + b'","usage":7}'
    reader = json_reader()

    tracemalloc.start()
    report = read(reader, (text[at : at + chunk_bytes] for at in range(0, len(text), chunk_bytes)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (report.basis, report.raw, report.faults) == (Basis.REPORTED, "7", ())
    assert peak < 6_000_000  # of 18 MB


def test_a_large_response_without_usage_is_reported_by_the_length_of_its_text() -> None:
    text = b'{"noise":[' + b'{"text":"x"},' * 10_000 + b'1],"text":"' + b"so on " * 20_000

    whole = read(json_reader(), [text, b'"}'])
    broken = read(json_reader(), [text], complete=False)

    assert (whole.raw, whole.faults) == ("120000 bytes", ())
    assert (broken.raw, broken.faults) == ("120000 bytes", ("the response is not a complete JSON object",))
