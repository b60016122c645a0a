"""Feeds a body to a usage reader: at once, byte by byte, or cut anywhere, as a network can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from tornado_proxy.domain.usage import UsageReport
from tornado_proxy.providers.contract import (
    ClientFrame,
    SocketEvent,
    SocketReader,
    UsageReader,
    UsageReported,
    WebSocketEndpoint,
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return `data` cut at the positions in `cuts`, modulo its length."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def read(reader: UsageReader, chunks: Iterable[bytes], *, complete: bool = True) -> UsageReport:
    """Return the report of a response that arrives in `chunks`."""
    for chunk in chunks:
        reader.feed(chunk)
    reader.close(complete=complete)
    return reader.result()


def read_three_ways(make: Callable[[], UsageReader], data: bytes) -> UsageReport:
    """Return the report of `data`; assert that it is the same byte by byte and in pieces of seven bytes."""
    report = read(make(), [data])
    assert read(make(), [data[at : at + 1] for at in range(len(data))]) == report
    assert read(make(), [data[at : at + 7] for at in range(0, len(data), 7)]) == report
    return report


def reports_of(events: Sequence[SocketEvent]) -> tuple[UsageReport, ...]:
    """Return the reports of `events`, which must all be UsageReported."""
    assert all(isinstance(event, UsageReported) for event in events)
    return tuple(event.report for event in events if isinstance(event, UsageReported))


def read_frame(endpoint: WebSocketEndpoint, reader: SocketReader, frame: str | bytes) -> ClientFrame:
    """Return what a client's frame asks for in a session, as a relay reads it."""
    data = frame.encode() if isinstance(frame, str) else frame
    return reader.accept_frame(endpoint.parse_frame(data, reader.model))
