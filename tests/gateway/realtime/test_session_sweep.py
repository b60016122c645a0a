"""The limits of many sessions are checked by few timers, each session in its own interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests import virtual_time
from tornado_proxy.gateway.realtime.session_sweep import SessionSweep


class Session:
    """Notes when it is checked; `act` is called then."""

    def __init__(self, act: Callable[[], None] | None = None) -> None:
        self.checked: list[float] = []
        self.act = act

    def check_limits(self, now: float) -> None:
        self.checked.append(now)
        if self.act is not None:
            self.act()


def run(work: Callable[[SessionSweep], Coroutine[Any, Any, None]]) -> None:
    async def start() -> None:
        await work(SessionSweep())

    virtual_time.run(start())


def test_each_session_is_checked_once_in_each_of_its_intervals() -> None:
    first, second, slow = Session(), Session(), Session()

    async def work(sweep: SessionSweep) -> None:
        sweep.add(first, 60)
        sweep.add(slow, 900)
        await asyncio.sleep(30)
        sweep.add(second, 60)
        await asyncio.sleep(190)

    run(work)

    assert first.checked == [60, 120, 180]
    assert second.checked == [90, 150, 210]
    assert slow.checked == []


def test_sessions_that_are_due_soon_after_another_are_checked_together() -> None:
    sessions = [Session() for _ in range(10)]

    async def work(sweep: SessionSweep) -> None:
        for session in sessions:
            sweep.add(session, 64)
            await asyncio.sleep(0.1)
        await asyncio.sleep(70)

    run(work)

    assert sessions[0].checked == [64]
    assert {tuple(session.checked) for session in sessions[1:]} == {(65,)}


def test_session_that_has_ended_is_not_checked_even_if_it_ends_in_a_check() -> None:
    sweeps: list[SessionSweep] = []
    ended, stays = Session(), Session()
    ends = Session(lambda: sweeps[0].discard(ends, 60))

    async def work(sweep: SessionSweep) -> None:
        sweeps.append(sweep)
        for session in (ended, ends, stays):
            sweep.add(session, 60)
        sweep.discard(ended, 60)
        await asyncio.sleep(130)
        sweep.discard(stays, 60)
        sweep.discard(stays, 60)
        await asyncio.sleep(100)
        sweep.add(stays, 60)
        await asyncio.sleep(60)

    run(work)

    assert (ended.checked, ends.checked) == ([], [60])
    assert stays.checked == [60, 120, 290]
