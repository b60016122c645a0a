from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import UsageReader
from tornado_proxy.providers.openai.shared.response_readers import EventsReader, JsonReader, OpaqueReader
from tornado_proxy.providers.shared.json_skimmer import COUNT, KEEP

DONE = b'data: {"type":"x.done","n":1}\n\n'


def report_without_usage(response_bytes: int) -> UsageReport:
    return UsageReport(basis=Basis.ESTIMATED, raw=f"{response_bytes} bytes")


def json_reader() -> UsageReader:
    def read_body(body: dict[str, object]) -> UsageReport | None:
        return UsageReport(basis=Basis.REPORTED, raw=str(body["usage"])) if "usage" in body else None

    return JsonReader({"usage": KEEP, "text": COUNT}, read_body, report_without_usage)


def events_reader(*results: list[tuple[int, bool]]) -> UsageReader:
    """Return a reader of x.done events; it appends (number of events, complete) to `results`."""

    def read_events(events: list[dict[str, object]], complete: bool) -> UsageReport | None:
        for entries in results:
            entries.append((len(events), complete))
        return UsageReport(basis=Basis.REPORTED, raw=str(events)) if events else None

    return EventsReader((b"x.done",), read_events, report_without_usage)


def basis_and_raw(make: Callable[[], UsageReader], data: bytes) -> tuple[Basis, str | None]:
    report = read_three_ways(make, data)
    return report.basis, report.raw


def test_an_opaque_response_is_reported_by_its_length() -> None:
    assert basis_and_raw(lambda: OpaqueReader(report_without_usage), b"12345") == (Basis.ESTIMATED, "5 bytes")


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


def test_only_events_of_the_given_type_are_read() -> None:
    other = b'data: {"type":"y.delta","text":"x.done"}\n\ndata: [DONE]\n\n'

    assert basis_and_raw(events_reader, other + DONE) == (Basis.REPORTED, "[{'type': 'x.done', 'n': 1}]")
    assert basis_and_raw(events_reader, other) == (Basis.ESTIMATED, f"{len(other)} bytes")


def test_a_last_event_without_a_blank_line_counts_only_in_a_complete_stream() -> None:
    results: list[tuple[int, bool]] = []

    read(events_reader(results), [DONE[:-2]])
    read(events_reader(results), [DONE[:-2]], complete=False)
    read(events_reader(results), [DONE, DONE], complete=False)

    assert results == [(1, True), (0, False), (2, False)]


def test_an_event_that_is_too_large_has_a_fault() -> None:
    report = read(events_reader(), [b"data: " + b"so on " * 11_500_000, b"x"])

    assert report.basis is Basis.ESTIMATED
    assert report.faults == ("an event of the response is too large",)


def test_deltas_of_the_text_type_are_the_text_of_an_estimate() -> None:
    def make() -> UsageReader:
        return EventsReader((b"x.done",), lambda events, _: None, report_without_usage, text_type=b"x.delta")

    deltas = b'data: {"type":"x.delta","delta":"abc","logprobs":[{"token":"abc"}]}\n\n' * 2

    assert basis_and_raw(make, deltas + b'data: {"type":"y","delta":"x.delta"}\n\n') == (Basis.ESTIMATED, "6 bytes")
