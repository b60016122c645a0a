"""The memory of open streams: many slow streams at once, which must all continue to deliver events."""

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

#: Streams that wait for their first event at once; more would measure the relay's backlog of connections.
_MAX_OPENING = 100

#: Seconds in which all streams must open; contestants that can hold them need half of it or less.
_OPEN_TIMEOUT_S = 60

#: Files that a relay needs besides two for each stream.
_SPARE_FILES = 1000


def make_part(count: int) -> Part:
    """Return the part with a number of streams; LiteLLM's proxy can hold only the smallest number."""

    async def measure(round_: Round) -> Figures:
        return await _hold(
            round_.contestant, min(round_.scaled(count), (round_.workspace.max_files - _SPARE_FILES) // 2)
        )

    smallest = count == COUNTS[0]
    contestants = (OURS, "nginx", "aiohttp", "meshagent", "litellm") if smallest else (OURS, "nginx", "aiohttp")
    return Part(
        f"streams-{count}",
        f"{count:,} slow streams",
        measure,
        contestants,
        fresh=True,
        rounds=3 if smallest else 1,
    )


async def _hold(contestant: Contestant, count: int) -> Figures:
    before, began = contestant.read_rss_bytes(), time.monotonic()
    opening = asyncio.Semaphore(_MAX_OPENING)
    tasks = [asyncio.ensure_future(_open(contestant, number, opening)) for number in range(count)]
    done, late = await asyncio.wait(tasks, timeout=_OPEN_TIMEOUT_S)
    opened_s = time.monotonic() - began
    for task in late:
        task.cancel()
    streams = [task.result() for task in done if task.exception() is None]
    flowing = await _count_flowing(streams)
    grown = contestant.read_rss_bytes() - before
    for stream in streams:
        stream.disconnect()
    await asyncio.sleep(2)  # the relay frees the memory of closed streams
    return {
        "streams": count,
        "kb_per_stream": grown / 1024 / count,
        "errors": count - flowing,
        "seconds_to_open": opened_s,
        "kb_left_per_stream": (contestant.read_rss_bytes() - before) / 1024 / count,
    }


async def _open(contestant: Contestant, number: int, opening: asyncio.Semaphore) -> Stream:
    async with opening:
        stream = await connect(contestant, number)
        stream.request_stream(f"events=1000 gap_us={_GAP_S * 1_000_000}")
        await stream.wait_for_events(1)
    return stream


async def _count_flowing(streams: list[Stream]) -> int:
    """Return the number of streams that get two further events each while all are open."""
    targets = [(stream, stream.events + 2) for stream in streams]
    waits = [asyncio.ensure_future(stream.wait_for_events(target)) for stream, target in targets]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*waits), 5 * _GAP_S)
    return sum(1 for stream, target in targets if stream.events >= target and not stream.ended.done())


PARTS = tuple(make_part(count) for count in COUNTS)
