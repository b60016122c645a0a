"""WebSocket sessions: messages as fast as they go, and what an open session costs."""

from __future__ import annotations

import asyncio
import time

from bench.contestants import DIRECT, OURS
from bench.load.session import Session, open_session
from bench.parts.base import Figures, Part, Round

_FLOOD_SESSIONS = 32

#: Messages of one response; then its session asks for the next.
_FLOOD_MESSAGES = 2000

_HELD_SESSIONS = 1000
_OPENING = 50

#: Seconds between messages of a held session.
_GAP_S = 2


async def flood(now: Round) -> Figures:
    """Messages a second over 32 sessions, and the relay's processor time for each."""
    sessions = [await open_session(now.contestant, number) for number in range(_FLOOD_SESSIONS)]
    counts = [0] * len(sessions)
    tasks = [asyncio.ensure_future(_pour(session, counts, at)) for at, session in enumerate(sessions)]
    try:
        await asyncio.sleep(0.5)
        before, began, already = now.contestant.cpu_s(), time.monotonic(), _so_far(counts, sessions)
        await asyncio.sleep(now.seconds)
        messages = _so_far(counts, sessions) - already
        spent, seconds = now.contestant.cpu_s() - before, time.monotonic() - began
    finally:
        for task, session in zip(tasks, sessions, strict=True):
            task.cancel()
            session.leave()
    broken = sum(1 for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, RuntimeError))
    if not messages:
        raise RuntimeError(f"not one message in {now.seconds} s")
    return {
        "messages_per_s": messages / seconds,
        "cpu_us_per_message": spent * 1e6 / messages,
        "core_share": spent / seconds,
        "broken_sessions": broken,
    }


async def _pour(session: Session, counts: list[int], at: int) -> None:
    while True:
        session.ask(f"events={_FLOOD_MESSAGES}")
        if not await session.ended:
            raise RuntimeError("a session broke")
        counts[at] += session.events


def _so_far(counts: list[int], sessions: list[Session]) -> int:
    return sum(counts) + sum(session.events for session in sessions if not session.ended.done())


async def held(now: Round) -> Figures:
    """Memory of a thousand sessions that each get a message every two seconds."""
    count = now.scaled(_HELD_SESSIONS)
    (await open_session(now.contestant)).leave()  # a relay without WebSockets is told of here
    before = now.contestant.rss_bytes()
    opening = asyncio.Semaphore(_OPENING)
    opened = await asyncio.gather(*(_open(now, number, opening) for number in range(count)), return_exceptions=True)
    sessions = [one for one in opened if isinstance(one, Session)]
    await asyncio.wait([asyncio.ensure_future(one.wait_for_events(3)) for one in sessions], timeout=5 * _GAP_S)
    flowing = sum(1 for session in sessions if session.events >= 3 and not session.ended.done())
    grown = now.contestant.rss_bytes() - before
    for session in sessions:
        session.leave()
    await asyncio.sleep(1)
    return {"sessions": count, "kb_per_session": grown / 1024 / count, "errors": count - flowing}


async def _open(now: Round, number: int, opening: asyncio.Semaphore) -> Session:
    async with opening:
        session = await open_session(now.contestant, number)
    session.ask(f"events=1000 gap_us={_GAP_S * 1_000_000}")
    return session


_RELAYS = (OURS, "nginx", "aiohttp")

PARTS = (
    Part("ws-flood", "WebSocket, 32 sessions back to back", flood, (DIRECT, *_RELAYS)),
    Part("ws-1000", "1,000 WebSocket sessions", held, _RELAYS, fresh=True, rounds=2),
)
