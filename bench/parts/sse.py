"""Server-sent events: the first event, the delay of each, and many streams as fast as they go."""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.contestants import DIRECT, OURS
from bench.load.stream import Stream, connect
from bench.parts.base import Figures, Part, Round

#: 20 streams with an event every 20 ms are 1,000 events a second.
_PACED_STREAMS = 20
_PACED_GAP_US = 20_000

_FLOOD_STREAMS = 32

#: Events of one stream of the flood; then its connection asks for the next.
_FLOOD_EVENTS = 5000

#: Events in one write of the provider where they come in bursts; a model that makes tokens one by one writes one.
_BURST = 16

_ALL = (DIRECT, OURS, "nginx", "aiohttp", "litellm")


async def first_event(now: Round) -> Figures:
    """Milliseconds from the request to the first event, one stream after the other on one connection."""
    waits: list[float] = []
    stream = await connect(now.contestant)
    until = time.monotonic() + now.seconds
    while time.monotonic() < until:
        stream.ask("events=3")
        if not await asyncio.wait_for(stream.ended, 20):
            raise RuntimeError(f"{now.contestant.name} broke a stream of three events")
        waits.append((stream.first_event_ns - stream.asked_ns) / 1e6)
        await asyncio.sleep(0.001)
    stream.leave()
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99)}


async def paced(now: Round) -> Figures:
    """Milliseconds from the provider's write of an event to the client's read, with 1,000 events a second."""
    streams: list[Stream] = []
    delays: list[int] = []
    before, events = now.contestant.cpu_s(), 50 * now.seconds
    for number in range(_PACED_STREAMS):
        stream = await connect(now.contestant, number)
        stream.delays_ns = delays
        stream.ask(f"events={events} gap_us={_PACED_GAP_US}")
        streams.append(stream)
        await asyncio.sleep(_PACED_GAP_US / 1e6 / _PACED_STREAMS)
    complete = await asyncio.wait_for(asyncio.gather(*(stream.ended for stream in streams)), now.seconds + 30)
    spent = now.contestant.cpu_s() - before
    for stream in streams:
        stream.leave()
    return {
        "p50_ms": percentile(delays, 50) / 1e6,
        "p99_ms": percentile(delays, 99) / 1e6,
        "cpu_us_per_event": spent * 1e6 / len(delays),
        "broken_streams": complete.count(False),
    }


async def flood(now: Round) -> Figures:
    """Events as fast as they go, each in a write of its own."""
    return await _flood(now, batch=1)


async def bursts(now: Round) -> Figures:
    """Events as fast as they go, sixteen in a write."""
    return await _flood(now, batch=_BURST)


async def _flood(now: Round, *, batch: int) -> Figures:
    """Events a second over 32 streams, and the relay's processor time for each."""
    counts = [0] * _FLOOD_STREAMS
    streams = [await connect(now.contestant, number, framed=True) for number in range(_FLOOD_STREAMS)]
    tasks = [asyncio.ensure_future(_pour(stream, counts, at, batch)) for at, stream in enumerate(streams)]
    try:
        await asyncio.sleep(0.5)
        before, began, already = now.contestant.cpu_s(), time.monotonic(), _so_far(counts, streams)
        await asyncio.sleep(now.seconds)
        events = _so_far(counts, streams) - already
        spent, seconds = now.contestant.cpu_s() - before, time.monotonic() - began
    finally:
        for task, stream in zip(tasks, streams, strict=True):
            task.cancel()
            stream.leave()
    broken = sum(1 for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, RuntimeError))
    if not events:
        raise RuntimeError(f"not one event in {now.seconds} s")
    return {
        "events_per_s": events / seconds,
        "cpu_us_per_event": spent * 1e6 / events,
        "core_share": spent / seconds,
        "broken_streams": broken,
    }


async def _pour(stream: Stream, counts: list[int], at: int, batch: int) -> None:
    while True:
        stream.ask(f"events={_FLOOD_EVENTS} batch={batch}")
        if not await stream.ended:
            raise RuntimeError("a stream broke")
        counts[at] += stream.events


def _so_far(counts: list[int], streams: list[Stream]) -> int:
    # What a complete stream adds to `counts` is in `stream.events` until its task has run.
    return sum(counts) + sum(stream.events for stream in streams if not stream.ended.done())


def percentile(values: list[float] | list[int], which: int) -> float:
    """The `which`-th percentile, of at least two values."""
    return statistics.quantiles(values, n=100)[which - 1]


PARTS = (
    Part("sse-first", "SSE, first event", first_event, _ALL, added=("p50_ms", "p99_ms")),
    Part("sse-paced", "SSE, 1,000 paced events a second", paced, _ALL, added=("p50_ms", "p99_ms")),
    Part("sse-flood", "SSE, 32 streams back to back", flood, _ALL),
    Part("sse-bursts", f"SSE, 32 streams in bursts of {_BURST}", bursts, _ALL),
)
