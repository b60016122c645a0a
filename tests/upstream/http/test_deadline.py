"""The deadline of libcurl's multi handle."""

from __future__ import annotations

import asyncio

from tornado_proxy.upstream.http.client import Deadline


def test_deadline_calls_back_once_at_its_last_position() -> None:
    async def run() -> tuple[int, int, float]:
        loop = asyncio.get_running_loop()
        calls: list[float] = []
        deadline = Deadline(loop, lambda: calls.append(loop.time()))
        started_at = loop.time()
        deadline.set(50)
        deadline.set(5000)
        deadline.set(200)
        await asyncio.sleep(0.1)
        early_calls = len(calls)
        await asyncio.sleep(0.3)
        return early_calls, len(calls), calls[0] - started_at

    early_calls, calls, elapsed_s = asyncio.run(run())

    assert (early_calls, calls) == (0, 1)
    assert elapsed_s >= 0.199


def test_deadline_of_zero_seconds_is_not_called_from_within_set() -> None:
    async def run() -> list[str]:
        events: list[str] = []
        deadline = Deadline(asyncio.get_running_loop(), lambda: events.append("reached"))
        deadline.set(0)
        events.append("set has returned")
        await asyncio.sleep(0.01)
        return events

    assert asyncio.run(run()) == ["set has returned", "reached"]


def test_removed_deadline_is_not_called() -> None:
    async def run() -> int:
        calls: list[None] = []
        loop = asyncio.get_running_loop()
        removed, cleared = (Deadline(loop, lambda: calls.append(None)) for _ in range(2))
        removed.set(10)
        removed.set(-1)
        cleared.set(10)
        cleared.clear()
        await asyncio.sleep(0.05)
        return len(calls)

    assert asyncio.run(run()) == 0


def test_deadline_can_be_reached_early_and_calls_back_once() -> None:
    async def run() -> list[str]:
        events: list[str] = []
        deadline = Deadline(asyncio.get_running_loop(), lambda: events.append("reached"))
        deadline.reach()
        deadline.set(0)
        deadline.reach()
        events.append("reach has returned")
        await asyncio.sleep(0.01)
        return events

    assert asyncio.run(run()) == ["reached", "reach has returned"]


def test_deadlines_of_now_do_not_delay_a_later_one() -> None:
    async def run() -> tuple[int, int]:
        calls: list[None] = []
        deadline = Deadline(asyncio.get_running_loop(), lambda: calls.append(None))
        deadline.set(5000)
        deadline.set(0)
        await asyncio.sleep(0.01)
        calls_of_now = len(calls)
        deadline.set(20)
        await asyncio.sleep(0.1)
        return calls_of_now, len(calls)

    assert asyncio.run(run()) == (1, 2)
