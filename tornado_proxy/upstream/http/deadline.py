"""A timer for a deadline that moves far more often than it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `on_reached` from the event loop when the deadline has passed, never from within set().

    libcurl moves its deadline four times per exchange, mostly to a later time.  A started timer therefore keeps
    running, and checks the deadline again when it fires: that is cheaper than to cancel and start one per move.
    """

    __slots__ = ("_at", "_fires_at", "_loop", "_on_reached", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_reached: Callable[[], None]) -> None:
        self._loop = loop
        self._on_reached = on_reached
        self._at: float | None = None
        self._timer: asyncio.Handle | None = None
        self._fires_at = 0.0

    def set(self, seconds: float | None) -> None:
        """Move the deadline to `seconds` from now; None removes it."""
        if seconds is None:
            self._at = None
            return
        self._at = self._loop.time() + seconds
        if self._timer is None or self._at < self._fires_at:
            self._start_timer(seconds)

    def clear(self) -> None:
        """Remove the deadline and cancel the timer."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self, seconds: float) -> None:
        assert self._at is not None
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = self._at
        # call_soon for 0 s: libcurl asks for it on every start, and it is cheaper than a timer.
        self._timer = self._loop.call_later(seconds, self._fire) if seconds > 0 else self._loop.call_soon(self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        remaining_s = self._at - self._loop.time()
        if remaining_s > 0:
            self._start_timer(remaining_s)
        else:
            self._at = None
            self._on_reached()
