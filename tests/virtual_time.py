"""An event loop whose clock jumps to the next timer, so that tests of timeouts, backoff and polls never wait.

asyncio computes how long its selector may wait until the next timer.  This selector does not wait: it advances the
loop's clock by that time.  `asyncio.sleep(3600)` returns at once, and timers still run in their order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Real seconds to wait for a thread, if no timer runs.  A test that waits longer waits for an event that never comes.
MAX_REAL_WAIT_S = 10.0


class DeadlockError(Exception):
    """Every task waits for an event that no task can set."""


class JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # a class that the platform chooses
    """A selector that adds the time it should wait to `now`, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Signals and results of threads arrive through a socket, so they are looked for before time passes.
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if timeout is None and not ready:
            # Only a thread can make progress now (asyncio.to_thread); the clock must not jump past it.
            ready = super().select(MAX_REAL_WAIT_S)
            if not ready:
                raise DeadlockError
        elif timeout and not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on the clock of a JumpingSelector."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop with virtual time and return its result, like asyncio.run()."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


async def settle(turns: int = 20) -> None:
    """Let every task run until it waits; no time passes."""
    for _ in range(turns):
        await asyncio.sleep(0)
