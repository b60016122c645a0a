"""One deadline that is moved far more often than it is met."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `due` once when the deadline has come, on the loop, never from within set().

    libcurl moves its deadline four times in an exchange, mostly away.  A timer that was started stays, and looks again
    when it fires.
    """

    __slots__ = ("_at", "_due", "_fires_at", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._loop = loop
        self._due = due
        self._at: float | None = None
        self._timer: asyncio.Handle | None = None
        self._fires_at = 0.0

    def set(self, seconds: float | None) -> None:
        """Move it to `seconds` from now; None: there is none."""
        if seconds is None:
            self._at = None
            return
        self._at = self._loop.time() + seconds
        if self._timer is None or self._at < self._fires_at:
            self._start(seconds)

    def clear(self) -> None:
        """Have none, and no timer either."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, seconds: float) -> None:
        assert self._at is not None
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = self._at
        self._timer = self._loop.call_later(seconds, self._fire) if seconds > 0 else self._loop.call_soon(self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self._start(left)
        else:
            self._at = None
            self._due()
