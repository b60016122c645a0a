"""Clients that stall, clients that disconnect, and many of them at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from bench.contestants import OURS, Contestant
from bench.load.stream import connect, fetch_provider_state
from bench.parts.base import Figures, Part, Round
from bench.parts.sse import percentile

_MB = 1_000_000

#: 200 MB in events of 16 kB: far more than all socket buffers on the way can hold.
_STALL_EVENTS, _STALL_PAD_BYTES = 12_500, 15_750

#: Seconds without reading.
_STALL_S = 4

_ABORTS = 40

#: Seconds in which the provider must see that the client disconnected.
_ABORT_TIMEOUT_S = 2

#: Streams of a storm that are read to the end, and streams that the client cuts.
_COMPLETE, _CUT = 600, 1200
_MAX_STORM_STREAMS = 150
_STRESS_EVENTS = 20

#: Events after those of a directive: the finish reason, and the usage.
_CLOSING_EVENTS = 2


async def measure_stall(round_: Round) -> Figures:
    """Return the growth of the relay while its client reads nothing of 200 MB, and whether the stream is complete."""
    before, events = round_.contestant.read_rss_bytes(), round_.scaled(_STALL_EVENTS)
    stream = await connect(round_.contestant)
    stream.request_stream(f"events={events} pad={_STALL_PAD_BYTES}")
    await stream.wait_for_events(1)
    stream.transport.pause_reading()
    grown = await _measure_growth(round_.contestant, before, _STALL_S * round_.scale)
    resumed = time.monotonic()
    stream.transport.resume_reading()
    complete = False
    with contextlib.suppress(TimeoutError):
        complete = await asyncio.wait_for(asyncio.shield(stream.ended), 60)
    took = time.monotonic() - resumed
    later = round_.contestant.read_rss_bytes() - before
    stream.disconnect()
    return {
        "grown_mb": grown / _MB,
        "grown_mb_after": later / _MB,
        "complete": complete and stream.events >= events,
        "mb_per_s_once_awake": stream.received_bytes / _MB / took,
    }


async def _measure_growth(contestant: Contestant, before: int, seconds: float) -> int:
    """Return the maximum growth of resident memory in the next seconds."""
    growth, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        growth = max(growth, contestant.read_rss_bytes() - before)
        await asyncio.sleep(0.05)
    return growth


async def measure_abort(round_: Round) -> Figures:
    """Return the milliseconds until a provider that sends nothing sees that the client disconnected."""
    disconnected: dict[int, int] = {}
    base = time.time_ns()  # ids that the provider has not seen in earlier rounds
    for number in range(base, base + round_.scaled(_ABORTS)):
        stream = await connect(round_.contestant)
        stream.request_stream(f"events=2 gap_us=60000000 id={number}")
        await asyncio.wait_for(stream.wait_for_events(1), 20)
        disconnected[number] = stream.disconnect()
        await asyncio.sleep(0.02)
    cut = await _wait_for_cuts(round_.provider_port, disconnected)
    delays_ms = [(cut.get(number, at + _ABORT_TIMEOUT_S * 10**9) - at) / 1e6 for number, at in disconnected.items()]
    never = len(disconnected) - len(cut)
    return {"p50_ms": percentile(delays_ms, 50), "p99_ms": percentile(delays_ms, 99), "never": never}


async def _wait_for_cuts(port: int, disconnected: dict[int, int]) -> dict[int, int]:
    """Return the times at which the provider saw the streams `disconnected` end, as far as it did in time."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + _ABORT_TIMEOUT_S
    while len(found) < len(disconnected) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        cut = (await fetch_provider_state(port)).cut
        found = {number: cut[number] for number in disconnected if number in cut}
    return found


async def measure_stress(round_: Round) -> Figures:
    """Run complete streams among twice as many cut ones; return the incomplete, the left open, and the growth."""
    # Pools and caches grow before anything is counted.
    await _run_storm(round_.contestant, round_.scaled(_COMPLETE // 4), round_.scaled(_CUT // 4))
    await _wait_for_closes(round_.provider_port)
    memory, files = round_.contestant.read_rss_bytes(), round_.contestant.count_open_files()
    began, complete, requested = time.monotonic(), 0, 0
    deadline = began + round_.seconds
    while requested == 0 or time.monotonic() < deadline:
        complete += await _run_storm(round_.contestant, round_.scaled(_COMPLETE), round_.scaled(_CUT))
        requested += round_.scaled(_COMPLETE)
    took = time.monotonic() - began
    still_open = await _wait_for_closes(round_.provider_port)
    return {
        "incomplete": requested - complete,
        "alive": round_.contestant.is_alive(),
        "streams_left_open": still_open,
        "files_left": round_.contestant.count_open_files() - files,
        "grown_mb": (round_.contestant.read_rss_bytes() - memory) / _MB,
        "streams_per_s": requested * (_COMPLETE + _CUT) / _COMPLETE / took,
    }


async def _run_storm(contestant: Contestant, complete: int, cut: int) -> int:
    """Run the streams, a hundred and fifty at a time; return how many of `complete` were complete."""
    slots = asyncio.Semaphore(_MAX_STORM_STREAMS)
    to_complete = [True] * complete + [False] * cut
    random.Random(7).shuffle(to_complete)
    outcomes = await asyncio.gather(
        *(_run_stream(contestant, slots, complete=in_full, at=at) for at, in_full in enumerate(to_complete)),
        return_exceptions=True,
    )
    return sum(1 for in_full, result in zip(to_complete, outcomes, strict=True) if in_full and result is True)


async def _run_stream(contestant: Contestant, slots: asyncio.Semaphore, *, complete: bool, at: int) -> bool:
    """Run a stream and return True if it is complete; without `complete`, cut it after some events."""
    async with slots:
        stream = await connect(contestant)
        stream.request_stream(f"events={_STRESS_EVENTS} gap_us=2000 id={at + 1}")
        try:
            if complete:
                return await asyncio.wait_for(stream.ended, 30) and stream.events == _STRESS_EVENTS + _CLOSING_EVENTS
            # Cuts before the response head, between events, and while the last of them is on its way.
            await asyncio.wait_for(stream.wait_for_events(at % (_STRESS_EVENTS + _CLOSING_EVENTS)), 30)
            return False
        finally:
            stream.disconnect()


async def _wait_for_closes(port: int) -> int:
    """Wait, at most 3 s, until the provider's streams have ended; return the number of open ones."""
    deadline = time.monotonic() + 3
    while (still_open := (await fetch_provider_state(port)).open) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return still_open


PARTS = (
    Part("stall", "A stalled client, a stream of 200 MB", measure_stall, fresh=True, rounds=3),
    Part("abort", "The client disconnects, the provider is silent", measure_abort, provider_processes=1, rounds=3),
    Part(
        "stress",
        "1,200 cut among 600 complete streams",
        measure_stress,
        (OURS, "nginx", "aiohttp"),
        provider_processes=1,
    ),
)
