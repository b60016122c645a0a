"""Checks the limits of all open sessions with one timer for each interval, instead of a task for each session."""

from __future__ import annotations

import asyncio
import itertools
from typing import Protocol

#: Parts of an interval: at most one timer fires in each part, and checks all sessions that are due.
_PARTS = 64


class LimitedSession(Protocol):
    """A session whose limits of time are checked regularly."""

    def check_limits(self, now: float) -> None:
        """End the session if it has reached a limit; `now` is of the event loop's clock."""


class SessionSweep:
    """Calls check_limits() of each session once in its own interval, the first time after the first one."""

    def __init__(self) -> None:
        #: By interval in seconds: sessions of one configuration have the same.
        self._groups: dict[float, _Group] = {}

    def add(self, session: LimitedSession, interval_s: float) -> None:
        """Check `session` from now on."""
        group = self._groups.get(interval_s)
        if group is None:
            group = self._groups[interval_s] = _Group(interval_s)
        group.add(session)

    def discard(self, session: LimitedSession, interval_s: float) -> None:
        """Stop checking `session`; `interval_s` is that of add()."""
        group = self._groups.get(interval_s)
        if group is not None and group.discard(session):
            del self._groups[interval_s]


class _Group:
    """The sessions with one interval."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        #: When each session is due, the earliest first.
        self._due: dict[LimitedSession, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, session: LimitedSession) -> None:
        due = self._due[session] = self._loop.time() + self._interval_s
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._check_due)

    def discard(self, session: LimitedSession) -> bool:
        """Return True if no session is left."""
        self._due.pop(session, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return not self._due

    def _check_due(self) -> None:
        now = self._loop.time()
        due = list(itertools.takewhile(lambda session: self._due[session] <= now, self._due))
        for session in due:
            del self._due[session]
            self._due[session] = now + self._interval_s  # behind the others
        first = next(iter(self._due.values()))
        self._timer = self._loop.call_at(max(first, now + self._interval_s / _PARTS), self._check_due)
        for session in due:
            session.check_limits(now)
