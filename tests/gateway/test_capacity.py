"""Limits on requests in flight and on drains, on a clock that jumps."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from tests import virtual_time
from tornado_proxy.domain.errors import Draining, Overloaded
from tornado_proxy.domain.record import Outcome
from tornado_proxy.gateway.capacity import Capacity, DrainLimiter


class Request:
    """A request in flight that keeps how it was ended."""

    def __init__(self) -> None:
        self.drained = 0
        self.ends: list[tuple[Outcome, str | None]] = []

    def drain(self) -> None:
        self.drained += 1

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        self.ends.append((outcome, reason))


def test_limit_counts_requests_in_flight() -> None:
    capacity, request = Capacity(), Request()

    capacity.add(request)
    capacity.check(2)
    with pytest.raises(Overloaded, match=r"1 requests in flight \(limits.max_streams\)"):
        capacity.check(1)
    capacity.discard(request)
    capacity.check(1)

    assert len(capacity) == 0


def test_arriving_request_is_not_limited_but_is_drained_and_ended() -> None:
    capacity, arriving, running = Capacity(), Request(), Request()
    capacity.add_arriving(arriving)
    capacity.add(running)

    capacity.check(2)
    capacity.begin_drain()

    assert len(capacity) == 1
    assert set(capacity) == {arriving, running}
    assert (arriving.drained, running.drained) == (1, 1)


def test_request_that_starts_while_the_server_drains_is_rejected() -> None:
    capacity = Capacity()

    capacity.begin_drain()

    assert capacity.draining
    with pytest.raises(Draining):
        capacity.check(10)


def test_request_that_ends_in_its_own_drain_does_not_disturb_the_others() -> None:
    class EndsAtOnce(Request):
        def drain(self) -> None:
            super().drain()
            capacity.discard(self)

    capacity = Capacity()
    requests = [EndsAtOnce(), EndsAtOnce(), EndsAtOnce()]
    for request in requests:
        capacity.add(request)

    capacity.begin_drain()

    assert [request.drained for request in requests] == [1, 1, 1]
    assert len(capacity) == 0


@pytest.fixture(params=["add", "add_arriving"])
def busy(request: pytest.FixtureRequest) -> tuple[Capacity, Request]:
    capacity, running = Capacity(), Request()
    getattr(capacity, request.param)(running)
    return capacity, running


def test_wait_for_idle_returns_when_the_last_request_ends(busy: tuple[Capacity, Request]) -> None:
    capacity, running = busy

    async def run() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(5, capacity.discard, running)
        await capacity.wait_idle(30)
        return loop.time()

    assert virtual_time.run(run()) == 5


def test_wait_for_idle_returns_after_its_limit(busy: tuple[Capacity, Request]) -> None:
    async def run() -> float:
        await busy[0].wait_idle(30)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(run()) == 30


def test_wait_for_idle_returns_at_once_if_nothing_is_in_flight() -> None:
    async def run() -> float:
        capacity, request = Capacity(), Request()
        capacity.add(request)
        capacity.discard(request)
        await capacity.wait_idle(30)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(run()) == 0


def test_second_wait_for_idle_waits_for_requests_that_started_after_the_first() -> None:
    async def run() -> float:
        capacity, first, second = Capacity(), Request(), Request()
        loop = asyncio.get_running_loop()
        capacity.add(first)
        loop.call_later(1, capacity.discard, first)
        await capacity.wait_idle(30)
        capacity.add(second)
        loop.call_later(1, capacity.discard, second)
        await capacity.wait_idle(30)
        return loop.time()

    assert virtual_time.run(run()) == 2


# DrainLimiter


def test_drain_ends_after_its_time_limit_and_states_the_reason() -> None:
    async def run() -> Request:
        drains, request = DrainLimiter(), Request()
        drains.begin(request, 120, 1000)
        await asyncio.sleep(119)
        assert request.ends == []
        await asyncio.sleep(2)
        return request

    reason = "not drained to its end: took more than 120 s (streams.drain_limit_s)"
    assert virtual_time.run(run()).ends == [(Outcome.CLIENT_CLOSED, reason)]


def test_drain_above_the_limit_ends_at_once_and_states_the_reason() -> None:
    async def run() -> tuple[Request, Request]:
        drains, first, second = DrainLimiter(), Request(), Request()
        drains.begin(first, 120, 1)
        drains.begin(second, 120, 1)
        assert len(drains) == 1
        return first, second

    first, second = virtual_time.run(run())

    assert first.ends == []
    reason = "not drained: 1 responses are being drained already (streams.drain_max)"
    assert second.ends == [(Outcome.CLIENT_CLOSED, reason)]


def test_finished_drain_has_no_deadline_and_leaves_room_for_another() -> None:
    async def run() -> tuple[Request, Request]:
        drains, first, second = DrainLimiter(), Request(), Request()
        drains.begin(first, 120, 1)
        drains.done(first)
        drains.done(first)
        drains.begin(second, 200, 1)
        await asyncio.sleep(150)
        return first, second

    first, second = virtual_time.run(run())

    assert (first.ends, second.ends) == ([], [])


def test_metrics_show_requests_in_flight_and_drains() -> None:
    async def run() -> tuple[float | None, float | None]:
        capacity, drains, request = Capacity(), DrainLimiter(), Request()
        capacity.add(request)
        drains.begin(request, 120, 1)
        return REGISTRY.get_sample_value("llm_proxy_requests_in_flight"), REGISTRY.get_sample_value("llm_proxy_drains")

    assert virtual_time.run(run()) == (1, 1)
