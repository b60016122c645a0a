"""Answers that are read to their end without a client, so that their records are exact; bounded in time and number."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tornado_proxy.domain.record import Outcome
from tornado_proxy.observability import metrics


class Drained(Protocol):
    """A call whose client has gone."""

    def end(self, outcome: Outcome, why: str | None = None) -> None:
        """Stop reading; the record becomes an estimate, and says why."""


class Drains:
    """The drains under way, each with its own deadline."""

    def __init__(self) -> None:
        self._deadlines: dict[Drained, asyncio.TimerHandle] = {}
        metrics.DRAINS.set_function(self.__len__)

    def begin(self, call: Drained, limit_s: float, most: int) -> None:
        """Let `call` go on for at most `limit_s`; when `most` drain already, end it at once."""
        if len(self._deadlines) >= most:
            call.end(Outcome.CLIENT_CLOSED, f"not drained: {most} answers are drained already (streams.drain_max)")
            return
        loop = asyncio.get_running_loop()
        why = f"not drained to its end: that takes more than {limit_s:g} s (streams.drain_limit_s)"
        self._deadlines[call] = loop.call_later(limit_s, call.end, Outcome.CLIENT_CLOSED, why)

    def done(self, call: Drained) -> None:
        """`call` has ended."""
        deadline = self._deadlines.pop(call, None)
        if deadline is not None:
            deadline.cancel()

    def __len__(self) -> int:
        return len(self._deadlines)
