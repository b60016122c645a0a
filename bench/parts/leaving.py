"""Clients that stall, leave, and leave in numbers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from bench.contestants import OURS, Contestant
from bench.load.stream import connect, provider_state
from bench.parts.base import Figures, Part, Round
from bench.parts.sse import percentile

_MB = 1_000_000

#: 200 MB in events of 16 kB.
_STALL_EVENTS, _STALL_PAD = 12_500, 15_750

#: Seconds without reading.
_STALL_S = 4

_ABORTS = 40

#: Seconds after which the provider is taken not to have been told.
_ABORT_LIMIT_S = 2

_COMPLETE, _CUT = 600, 1200
_STRESS_AT_ONCE = 150
_STRESS_EVENTS = 20

#: What follows the events that a directive asks for: the finish reason, and the usage.
_CLOSING_EVENTS = 2


async def stalled(now: Round) -> Figures:
    """Growth of the relay while its client reads nothing of a stream of 200 MB, and whether all of it comes then."""
    before, events = now.contestant.rss_bytes(), now.scaled(_STALL_EVENTS)
    stream = await connect(now.contestant)
    stream.ask(f"events={events} pad={_STALL_PAD}")
    await stream.wait_for_events(1)
    stream.transport.pause_reading()
    grown = await _most_grown(now.contestant, before, _STALL_S * now.scale)
    woken = time.monotonic()
    stream.transport.resume_reading()
    complete = False
    with contextlib.suppress(TimeoutError):
        complete = await asyncio.wait_for(asyncio.shield(stream.ended), 60)
    took = time.monotonic() - woken
    later = now.contestant.rss_bytes() - before
    stream.leave()
    return {
        "grown_mb": grown / _MB,
        "grown_mb_after": later / _MB,
        "complete": complete and stream.events >= events,
        "mb_per_s_once_awake": stream.received_bytes / _MB / took,
    }


async def _most_grown(contestant: Contestant, before: int, seconds: float) -> int:
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, contestant.rss_bytes() - before)
        await asyncio.sleep(0.05)
    return most


async def aborted(now: Round) -> Figures:
    """Milliseconds until a provider that is silent sees that the client has left."""
    left: dict[int, int] = {}
    base = time.time_ns()  # so that a provider which has served other rounds knows no such stream yet
    for number in range(base, base + now.scaled(_ABORTS)):
        stream = await connect(now.contestant)
        stream.ask(f"events=2 gap_us=60000000 id={number}")
        await asyncio.wait_for(stream.wait_for_events(1), 20)
        left[number] = stream.leave()
        await asyncio.sleep(0.02)
    seen = await _seen_by(now.provider_port, left)
    waits = [(seen.get(number, at + _ABORT_LIMIT_S * 10**9) - at) / 1e6 for number, at in left.items()]
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99), "never": len(left) - len(seen)}


async def _seen_by(port: int, left: dict[int, int]) -> dict[int, int]:
    seen: dict[int, int] = {}
    until = time.monotonic() + _ABORT_LIMIT_S
    while len(seen) < len(left) and time.monotonic() < until:
        await asyncio.sleep(0.2)
        cut = (await provider_state(port)).cut
        seen = {number: cut[number] for number in left if number in cut}
    return seen


async def stress(now: Round) -> Figures:
    """Complete streams among twice as many that are cut anywhere; what is lost, broken or left behind."""
    await _storm(
        now.contestant, now.scaled(_COMPLETE // 4), now.scaled(_CUT // 4)
    )  # pools and caches grow before anything is counted
    await _all_closed(now.provider_port)
    memory, files = now.contestant.rss_bytes(), now.contestant.open_files()
    began, until, complete, asked = time.monotonic(), time.monotonic() + now.seconds, 0, 0
    while asked == 0 or time.monotonic() < until:
        complete += await _storm(now.contestant, now.scaled(_COMPLETE), now.scaled(_CUT))
        asked += now.scaled(_COMPLETE)
    took = time.monotonic() - began
    still_open = await _all_closed(now.provider_port)
    return {
        "incomplete": asked - complete,
        "alive": now.contestant.alive(),
        "streams_left_open": still_open,
        "files_left": now.contestant.open_files() - files,
        "grown_mb": (now.contestant.rss_bytes() - memory) / _MB,
        "streams_per_s": asked * (_COMPLETE + _CUT) / _COMPLETE / took,
    }


async def _storm(contestant: Contestant, complete: int, cut: int) -> int:
    """Run so many streams, a hundred and fifty at a time; returns how many of `complete` came whole."""
    slots = asyncio.Semaphore(_STRESS_AT_ONCE)
    kinds = [True] * complete + [False] * cut
    random.Random(7).shuffle(kinds)
    outcomes = await asyncio.gather(
        *(_one(contestant, slots, whole=whole, at=at) for at, whole in enumerate(kinds)), return_exceptions=True
    )
    return sum(1 for whole, outcome in zip(kinds, outcomes, strict=True) if whole and outcome is True)


async def _one(contestant: Contestant, slots: asyncio.Semaphore, *, whole: bool, at: int) -> bool:
    async with slots:
        stream = await connect(contestant)
        stream.ask(f"events={_STRESS_EVENTS} gap_us=2000 id={at + 1}")
        try:
            if whole:
                return await asyncio.wait_for(stream.ended, 30) and stream.events == _STRESS_EVENTS + _CLOSING_EVENTS
            # Before the head, between events, and while the last of them is on its way.
            await asyncio.wait_for(stream.wait_for_events(at % (_STRESS_EVENTS + _CLOSING_EVENTS)), 30)
            return False
        finally:
            stream.leave()


async def _all_closed(port: int) -> int:
    """Wait, at most 3 s, for the provider's streams to be over; returns how many still run."""
    until = time.monotonic() + 3
    while (still := (await provider_state(port)).open) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    return still


PARTS = (
    Part("stall", "A stalled client, a stream of 200 MB", stalled, fresh=True, rounds=3),
    Part("abort", "The client leaves, the provider is silent", aborted, provider_processes=1, rounds=3),
    Part("stress", "1,200 cut among 600 complete streams", stress, (OURS, "nginx", "aiohttp"), provider_processes=1),
)
