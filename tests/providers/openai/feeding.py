"""Feeding a reader or an edit in every way that a network may: whole, byte by byte, cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import SocketEvent, UsageReader, UsageReported


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at the given places, modulo its length."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def read(reader: UsageReader, chunks: Iterable[bytes], *, complete: bool = True) -> UsageReport:
    """The report of one answer."""
    for chunk in chunks:
        reader.feed(chunk)
    reader.close(complete=complete)
    return reader.result()


def read_three_ways(make: Callable[[], UsageReader], data: bytes) -> UsageReport:
    """The report of `data`, which is the same however it is split."""
    whole = read(make(), [data])
    assert read(make(), [data[at : at + 1] for at in range(len(data))]) == whole
    assert read(make(), [data[at : at + 7] for at in range(0, len(data), 7)]) == whole
    return whole


def reports_of(events: Sequence[SocketEvent]) -> tuple[UsageReport, ...]:
    """Return the reports of `events`, which must all be UsageReported."""
    assert all(isinstance(event, UsageReported) for event in events)
    return tuple(event.report for event in events if isinstance(event, UsageReported))
