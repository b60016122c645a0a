"""Server-sent events: the first event, the delay of each event, and many streams at full speed."""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.contestants import DIRECT, OURS
from bench.load.stream import Stream, connect
from bench.parts.base import Figures, Part, Round
from bench.parts.flood import measure_flood

#: 20 streams with an event every 20 ms are 1,000 events a second, which leaves every contestant idle most of the time.
_PACED_STREAMS = 20
_PACED_GAP_US = 20_000

_FLOOD_STREAMS = 32

#: Events of a stream of the flood; then its connection requests the next one.
_FLOOD_EVENTS = 5000

#: Events in one write of the provider in `sse-bursts`.  A model that generates tokens one by one writes one.
_BURST_EVENTS = 16

_ALL = (DIRECT, OURS, "nginx", "aiohttp", "meshagent", "litellm")


async def measure_first_event(round_: Round) -> Figures:
    """Return the milliseconds from a request to its first event, for one stream after another on one connection."""
    delays_ms: list[float] = []
    stream = await connect(round_.contestant)
    deadline = time.monotonic() + round_.seconds
    while time.monotonic() < deadline:
        stream.request_stream("events=3")
        if not await asyncio.wait_for(stream.ended, 20):
            raise RuntimeError(f"{round_.contestant.name} broke a stream of three events")
        delays_ms.append((stream.first_event_ns - stream.requested_ns) / 1e6)
        # The relay gets a moment to finish what follows a response, such as its record, outside of the measured time.
        await asyncio.sleep(0.001)
    stream.disconnect()
    return {"p50_ms": percentile(delays_ms, 50), "p99_ms": percentile(delays_ms, 99)}


async def measure_paced(round_: Round) -> Figures:
    """Return the milliseconds from the provider's write of an event to the client's read, at 1,000 events a second."""
    streams: list[Stream] = []
    delays_ns: list[int] = []
    cpu_before_s, events = round_.contestant.read_cpu_s(), round(50 * round_.seconds)
    for number in range(_PACED_STREAMS):
        stream = await connect(round_.contestant, number)
        stream.delays_ns = delays_ns
        stream.request_stream(f"events={events} gap_us={_PACED_GAP_US}")
        streams.append(stream)
        # The starts are spread over one gap, so that the events of all streams are too.
        await asyncio.sleep(_PACED_GAP_US / 1e6 / _PACED_STREAMS)
    complete = await asyncio.wait_for(asyncio.gather(*(stream.ended for stream in streams)), round_.seconds + 30)
    cpu_s = round_.contestant.read_cpu_s() - cpu_before_s
    for stream in streams:
        stream.disconnect()
    return {
        "p50_ms": percentile(delays_ns, 50) / 1e6,
        "p99_ms": percentile(delays_ns, 99) / 1e6,
        "cpu_us_per_event": cpu_s * 1e6 / len(delays_ns),
        "broken_streams": complete.count(False),
    }


async def measure_single_events(round_: Round) -> Figures:
    """Measure streams at full speed, with each event in a write of its own."""
    return await _measure_flood(round_, batch=1)


async def measure_bursts(round_: Round) -> Figures:
    """Measure streams at full speed, with sixteen events in a write."""
    return await _measure_flood(round_, batch=_BURST_EVENTS)


async def _measure_flood(round_: Round, *, batch: int) -> Figures:
    # The client shares the machine with the relay: `framed` makes its reads cheap enough not to limit the flood.
    streams = [await connect(round_.contestant, number, framed=True) for number in range(_FLOOD_STREAMS)]
    flood = await measure_flood(round_, streams, f"events={_FLOOD_EVENTS} batch={batch}")
    return {
        "events_per_s": flood.events_per_s,
        "cpu_us_per_event": flood.cpu_us_per_event,
        "core_share": flood.core_share,
        "broken_streams": flood.broken,
    }


def percentile(values: list[float] | list[int], percent: int) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100)[percent - 1]


PARTS = (
    Part("sse-first", "SSE, first event", measure_first_event, _ALL, added=("p50_ms", "p99_ms")),
    Part("sse-paced", "SSE, 1,000 paced events a second", measure_paced, _ALL, added=("p50_ms", "p99_ms")),
    Part("sse-flood", "SSE, 32 streams back to back", measure_single_events, _ALL),
    Part("sse-bursts", f"SSE, 32 streams in bursts of {_BURST_EVENTS}", measure_bursts, _ALL),
)
