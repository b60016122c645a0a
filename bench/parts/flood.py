"""Measure many connections that request one stream after another as fast as the relay can send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.stream import Stream
from bench.parts.base import Round

#: Seconds before the measurement, in which all connections reach full speed.
_RAMP_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Flood:
    """The events of a measurement, its duration, the relay's CPU time, and the connections with a broken stream."""

    events: int
    seconds: float
    cpu_s: float
    broken: int

    @property
    def events_per_s(self) -> float:
        """Events a second over all connections."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """Microseconds of the relay's CPU time for an event."""
        return self.cpu_s * 1e6 / self.events

    @property
    def core_share(self) -> float:
        """The share of a core that the relay used."""
        return self.cpu_s / self.seconds


async def measure_flood(round_: Round, streams: Sequence[Stream], directive: str) -> Flood:
    """Request `directive` on every connection, again and again, and count events for the seconds of the round.

    Raises:
        RuntimeError: no event arrived.
    """
    counts = [0] * len(streams)
    tasks = [asyncio.ensure_future(_repeat(stream, directive, counts, at)) for at, stream in enumerate(streams)]
    try:
        await asyncio.sleep(_RAMP_UP_S)
        cpu_before_s, began, events_before = round_.contestant.read_cpu_s(), time.monotonic(), _sum(counts, streams)
        await asyncio.sleep(round_.seconds)
        events = _sum(counts, streams) - events_before
        cpu_s, seconds = round_.contestant.read_cpu_s() - cpu_before_s, time.monotonic() - began
    finally:
        for task, stream in zip(tasks, streams, strict=True):
            task.cancel()
            stream.disconnect()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if not events:
        raise RuntimeError(f"no event arrived in {round_.seconds} s")
    return Flood(events, seconds, cpu_s, sum(isinstance(result, RuntimeError) for result in results))


async def _repeat(stream: Stream, directive: str, counts: list[int], at: int) -> None:
    while True:
        stream.request_stream(directive)
        if not await stream.ended:
            raise RuntimeError("incomplete stream")
        counts[at] += stream.events


def _sum(counts: list[int], streams: Sequence[Stream]) -> int:
    # Until its task has run, the events of a complete stream are in `stream.events` and not yet in `counts`.
    return sum(counts) + sum(stream.events for stream in streams if not stream.ended.done())
