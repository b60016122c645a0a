"""WebSocket sessions: messages at full speed, and the memory of open sessions."""

from __future__ import annotations

import asyncio

from bench.contestants import DIRECT, OURS
from bench.load.session import Session, open_session
from bench.parts.base import Figures, Part, Round
from bench.parts.flood import measure_flood

_FLOOD_SESSIONS = 32

#: Messages of a response; then its session requests the next one.
_FLOOD_MESSAGES = 2000

_OPEN_SESSIONS = 1000

#: Sessions that are being opened at once; more would measure the relay's backlog of connections.
_MAX_OPENING = 50

#: Seconds between messages of an open session.
_GAP_S = 2


async def measure_messages(round_: Round) -> Figures:
    """Return the messages a second over 32 sessions, and the relay's CPU time for each."""
    sessions = [await open_session(round_.contestant, number) for number in range(_FLOOD_SESSIONS)]
    flood = await measure_flood(round_, sessions, f"events={_FLOOD_MESSAGES}")
    return {
        "messages_per_s": flood.events_per_s,
        "cpu_us_per_message": flood.cpu_us_per_event,
        "core_share": flood.core_share,
        "broken_sessions": flood.broken,
    }


async def measure_open_sessions(round_: Round) -> Figures:
    """Return the memory of a thousand sessions with a message every two seconds each."""
    count = round_.scaled(_OPEN_SESSIONS)
    # Fails at once for a relay without WebSockets, which the runner then skips.
    (await open_session(round_.contestant)).disconnect()
    before = round_.contestant.read_rss_bytes()
    opening = asyncio.Semaphore(_MAX_OPENING)
    opened = await asyncio.gather(*(_open(round_, number, opening) for number in range(count)), return_exceptions=True)
    sessions = [session for session in opened if isinstance(session, Session)]
    waits = [asyncio.ensure_future(session.wait_for_events(3)) for session in sessions]
    await asyncio.wait(waits, timeout=5 * _GAP_S)
    flowing = sum(1 for session in sessions if session.events >= 3 and not session.ended.done())
    grown = round_.contestant.read_rss_bytes() - before
    for session in sessions:
        session.disconnect()
    await asyncio.sleep(1)
    return {"sessions": count, "kb_per_session": grown / 1024 / count, "errors": count - flowing}


async def _open(round_: Round, number: int, opening: asyncio.Semaphore) -> Session:
    async with opening:
        session = await open_session(round_.contestant, number)
    session.request_stream(f"events=1000 gap_us={_GAP_S * 1_000_000}")
    return session


_RELAYS = (OURS, "nginx", "aiohttp")

PARTS = (
    Part("ws-flood", "WebSocket, 32 sessions back to back", measure_messages, (DIRECT, *_RELAYS)),
    Part("ws-1000", "1,000 WebSocket sessions", measure_open_sessions, _RELAYS, fresh=True, rounds=2),
)
