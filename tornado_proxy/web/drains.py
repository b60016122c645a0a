"""Answers that are read to their end without a client, so that their records are exact; bounded in time and number."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tornado_proxy.domain.call import Outcome


class Drained(Protocol):
    """A call whose client has gone."""

    def end(self, outcome: Outcome) -> None:
        """Stop reading; the record becomes an estimate."""


class Drains:
    """The drains under way, each with its own deadline."""

    def __init__(self) -> None:
        self._deadlines: dict[Drained, asyncio.TimerHandle] = {}

    def begin(self, call: Drained, limit_s: float, most: int) -> None:
        """Let `call` go on for at most `limit_s`; when `most` drain already, end it at once."""
        if len(self._deadlines) >= most:
            call.end(Outcome.CLIENT_CLOSED)
            return
        loop = asyncio.get_running_loop()
        self._deadlines[call] = loop.call_later(limit_s, call.end, Outcome.CLIENT_CLOSED)

    def done(self, call: Drained) -> None:
        """`call` has ended."""
        deadline = self._deadlines.pop(call, None)
        if deadline is not None:
            deadline.cancel()

    def __len__(self) -> int:
        return len(self._deadlines)
