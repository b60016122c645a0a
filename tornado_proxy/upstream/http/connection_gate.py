"""One call goes ahead to a provider that was not spoken to of late; those that come meanwhile wait for its connection.

Theory of operation.  A burst of calls that finds no connection would make one each, although HTTP/2 carries them all on
one, and look the same name up for each: a name server that is slow would then keep all of libcurl's threads for that
busy, and calls to other providers would wait behind them.

    first call ──> libcurl ──> connected: all others go
                      │
                      ├ ended before that: the next call goes ahead in its place
                      └ NEXT_S have passed: the next call goes ahead beside it
    other calls ──> wait, no longer than a connection of their own might take

With TLS the others wait for as long again as the connection took: by then the provider has said how many streams it
takes (RFC 9113 section 6.5.2), and those that are too many make connections of their own and need not be refused.

After that a provider is known for KNOWN_S.  Then a call goes ahead again; where it finds a connection that was kept,
nobody waits longer than a turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado_proxy.upstream.http.easy_handle import EasyHandle

#: Seconds after a connection until a call goes ahead again; libcurl forgets a name after 60.
KNOWN_S = 30.0

#: Seconds after which the next call goes ahead, lest all wait for one lost packet.
NEXT_S = 1.0

Use = Callable[["EasyHandle"], None]


class ConnectionGate:
    """Decides when a handle is given to libcurl: `give` does that, `late` ends one that was not connected in time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, give: Use, late: Use) -> None:
        self._loop = loop
        self._give = give
        self._late = late
        self._known_until: dict[str, float] = {}
        self._openings: dict[str, _Opening] = {}

    def start(self, handle: EasyHandle, origin: str, timeout_s: float) -> None:
        """Give `handle` to libcurl, now or when a connection to `origin` stands; it may take `timeout_s` to that."""
        now = self._loop.time()
        opening = self._openings.get(origin)
        if opening is None:
            if self._known_until.get(origin, 0.0) > now:
                self._give(handle)
                return
            timer = self._loop.call_later(NEXT_S, self._tick, origin)
            opening = self._openings[origin] = _Opening(timer)
        opening.deadlines[handle] = now + timeout_s
        handle.opens = origin
        if not opening.ahead:
            self._go_ahead(opening, handle)

    def leave(self, handle: EasyHandle) -> bool:
        """The exchange of `handle` has ended before its origin was known; gives whether libcurl has the handle."""
        origin, handle.opens = handle.opens, None
        if origin is None:
            return True
        opening = self._openings[origin]
        del opening.deadlines[handle]
        given = handle in opening.ahead
        opening.ahead.discard(handle)
        if not opening.deadlines:
            self._close(origin)
        elif not opening.ahead:
            self._go_ahead(opening, next(iter(opening.deadlines)))
        return given

    def connected(self, origin: str, took_s: float) -> None:
        """A connection to `origin` stands; it took `took_s` to make."""
        self._known_until[origin] = self._loop.time() + KNOWN_S
        opening = self._openings.get(origin)
        if opening is None or opening.stands:
            return
        opening.stands = True
        opening.timer.cancel()
        pause_s = took_s if origin.startswith("https:") else 0.0
        opening.timer = self._loop.call_later(min(pause_s, NEXT_S), self._let_go, origin)

    def _close(self, origin: str) -> _Opening:
        opening = self._openings.pop(origin)
        opening.timer.cancel()
        return opening

    def _let_go(self, origin: str) -> None:
        opening = self._close(origin)
        for handle in opening.deadlines:
            handle.opens = None
            if handle not in opening.ahead:
                self._give(handle)

    def _go_ahead(self, opening: _Opening, handle: EasyHandle) -> None:
        opening.ahead.add(handle)
        handle.start_probe(self.connected)
        self._give(handle)

    def _tick(self, origin: str) -> None:
        opening = self._openings[origin]
        opening.timer = self._loop.call_later(NEXT_S, self._tick, origin)
        now = self._loop.time()
        for handle in [handle for handle, deadline in opening.deadlines.items() if deadline <= now]:
            self._late(handle)
        waiting = [handle for handle in opening.deadlines if handle not in opening.ahead]
        if waiting:
            self._go_ahead(opening, waiting[0])


class _Opening:
    """Who goes to an origin that is not known: all of them with the time until when, and those that went ahead."""

    __slots__ = ("ahead", "deadlines", "stands", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.stands = False
        self.ahead: set[EasyHandle] = set()
        self.deadlines: dict[EasyHandle, float] = {}
