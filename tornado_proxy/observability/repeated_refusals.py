"""Counts the refusals that a caller gets again and again: one log line for the first, one for the rest of its minute.

    first refusal ──> line `request rejected`, and a minute begins
    further ones  ──> counted
    end of the minute ──> line `requests rejected` with the count, if there were any

Clients repeat a request that a budget or a limit refuses, a program that has run away does so for hours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from tornado_proxy.domain.errors import BudgetExceeded, RateLimited, RequestError, Stopped
from tornado_proxy.domain.identity import Caller
from tornado_proxy.observability import access_log

#: Errors that a client gets for every further request.
_REPEATED = (BudgetExceeded, RateLimited, Stopped)

_MINUTE_S = 60.0

#: Callers and codes that are counted at the same time; the refusals of further ones have lines of their own.
MAX_COUNTED = 4096

#: Seconds between two looks for minutes that have ended.
_FLUSH_S = 5.0

_Key = tuple[str, str | None, str | None, str | None, str]


@dataclass(slots=True)
class _Minute:
    """The refusals of a caller with one code, after the first."""

    caller: Caller
    error: RequestError
    ends_at: float
    count: int = 0
    last_request_id: str = ""


class RepeatedRefusals:
    """The refusals of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: dict[_Key, _Minute] = {}

    def count(self, request_id: str, error: RequestError, caller: Caller) -> bool:
        """Return True if a refusal was counted and needs no line of its own."""
        if not isinstance(error, _REPEATED):
            return False
        now = self._clock()
        key = (caller.project_id, caller.participant, caller.user, caller.issuer, error.code)
        minute = self._minutes.get(key)
        if minute is not None and now < minute.ends_at:
            minute.count += 1
            minute.last_request_id = request_id
            return True
        if minute is not None:
            _log(self._minutes.pop(key))
        if len(self._minutes) < MAX_COUNTED:
            self._minutes[key] = _Minute(caller, error, now + _MINUTE_S)
        return False

    def flush(self, *, ended_only: bool = False) -> None:
        """Log the refusals that were counted; with `ended_only` those of minutes that have ended."""
        now = self._clock()
        for key, minute in list(self._minutes.items()):
            if not ended_only or now >= minute.ends_at:
                _log(self._minutes.pop(key))

    async def run(self) -> None:
        """Log the refusals of each minute when it has ended, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            self.flush(ended_only=True)


def _log(minute: _Minute) -> None:
    if minute.count:
        access_log.log_repeated_rejections(minute.caller, minute.error, minute.count, minute.last_request_id)
