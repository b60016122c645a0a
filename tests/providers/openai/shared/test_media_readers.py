from __future__ import annotations

from collections.abc import Callable

from tests.providers.reading import read, read_three_ways
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import UsageReader
from tornado_proxy.providers.openai.shared.media_readers import EventsReader, OpaqueReader

DONE = b'data: {"type":"x.done","n":1}\n\n'


def report_without_usage(response_bytes: int) -> UsageReport:
    return UsageReport(basis=Basis.ESTIMATED, raw=f"{response_bytes} bytes")


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
