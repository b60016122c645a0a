"""What an open stream costs: many slow streams at once, all of which must flow."""

from __future__ import annotations

import asyncio
import contextlib
import time

from bench.contestants import OURS, Contestant
from bench.load.stream import Stream, connect
from bench.parts.base import Figures, Part, Round

COUNTS = (1000, 5000, 10000)

#: Seconds between events of a slow stream.
_GAP_S = 2

#: Streams that may be on their way to their first event at once.
_OPENING = 100

#: Seconds for all streams to open; far above what any contestant that can do it needs.
_PATIENCE_S = 60

#: Files that a relay needs beside its two for each stream.
_SPARE_FILES = 1000


def part(count: int) -> Part:
    """The part with so many streams; LiteLLM's proxy takes only the smallest number."""

    async def measure(now: Round) -> Figures:
        return await _hold(now.contestant, min(now.scaled(count), (now.place.files - _SPARE_FILES) // 2))

    least = count == COUNTS[0]
    contestants = (OURS, "nginx", "aiohttp", "litellm") if least else (OURS, "nginx", "aiohttp")
    return Part(
        f"streams-{count}", f"{count:,} slow streams", measure, contestants, fresh=True, rounds=3 if least else 1
    )


async def _hold(contestant: Contestant, count: int) -> Figures:
    before, began = contestant.rss_bytes(), time.monotonic()
    opening = asyncio.Semaphore(_OPENING)
    tasks = [asyncio.ensure_future(_open(contestant, number, opening)) for number in range(count)]
    done, late = await asyncio.wait(tasks, timeout=_PATIENCE_S)
    opened_s = time.monotonic() - began
    for task in late:
        task.cancel()
    streams = [task.result() for task in done if task.exception() is None]
    flowing = await _flowing(streams)
    grown = contestant.rss_bytes() - before
    for stream in streams:
        stream.leave()
    await asyncio.sleep(2)
    return {
        "streams": count,
        "kb_per_stream": grown / 1024 / count,
        "errors": count - flowing,
        "seconds_to_open": opened_s,
        "kb_left_per_stream": (contestant.rss_bytes() - before) / 1024 / count,
    }


async def _open(contestant: Contestant, number: int, opening: asyncio.Semaphore) -> Stream:
    async with opening:
        stream = await connect(contestant, number)
        stream.ask(f"events=1000 gap_us={_GAP_S * 1_000_000}")
        await stream.wait_for_events(1)
    return stream


async def _flowing(streams: list[Stream]) -> int:
    """How many streams get two further events each while all are open."""
    targets = [(stream, stream.events + 2) for stream in streams]
    waits = [asyncio.ensure_future(stream.wait_for_events(target)) for stream, target in targets]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*waits), 5 * _GAP_S)
    return sum(1 for stream, target in targets if stream.events >= target and not stream.ended.done())


PARTS = tuple(part(count) for count in COUNTS)
