"""Limits on requests in flight and on drains, on a clock that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from tests import virtual_time
from tornado_proxy.config.settings import LimitSettings
from tornado_proxy.domain.errors import Draining, Overloaded, RateLimited
from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission.capacity import ArrivingBytes, Capacity, DrainLimiter


def limits(**changes: int) -> LimitSettings:
    """Return limits that allow much, with `changes`."""
    return replace(LimitSettings(64, 256, 100, 100, 100, 100), **changes)


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

    capacity.add(request, "p")
    capacity.check(limits(max_streams=2), "p")
    with pytest.raises(Overloaded, match=r"1 requests in flight \(limits.max_streams\)"):
        capacity.check(limits(max_streams=1), "p")
    capacity.discard(request)
    capacity.check(limits(max_streams=1), "p")

    assert len(capacity) == 0


def test_arriving_request_is_limited_drained_and_ended_as_a_running_one() -> None:
    capacity, arriving, running = Capacity(), Request(), Request()
    capacity.add_arriving(arriving, "p")
    capacity.add(running, "p")

    capacity.check(limits(max_streams=3), "p")
    with pytest.raises(Overloaded, match="2 requests in flight"):
        capacity.check(limits(max_streams=2), "p")
    capacity.begin_drain()

    assert len(capacity) == 1
    assert set(capacity) == {arriving, running}
    assert (arriving.drained, running.drained) == (1, 1)


def test_project_with_its_share_of_streams_leaves_the_rest_to_others() -> None:
    capacity, settings = Capacity(), limits(max_streams=4, max_streams_per_project=2)
    requests = [Request() for _ in range(2)]
    capacity.add_arriving(requests[0], "p")
    capacity.add(requests[1], "p")

    with pytest.raises(RateLimited, match=r"your project has 2 requests in flight \(limits.max_streams_per_project\)"):
        capacity.check(settings, "p")
    capacity.check(settings, "q")
    capacity.discard(requests[0])
    capacity.check(settings, "p")


def test_request_that_changes_from_arriving_to_running_counts_once() -> None:
    capacity, handler, relay = Capacity(), Request(), Request()
    capacity.add_arriving(handler, "p")

    capacity.add(relay, "p")
    capacity.add(relay, "p")
    capacity.discard(handler)

    capacity.check(limits(max_streams=2, max_streams_per_project=2), "p")
    with pytest.raises(Overloaded):
        capacity.check(limits(max_streams=1), "p")


ADA, BOB = Caller("p", participant="ada"), Caller("p", participant="bob")


def test_bytes_that_arrive_are_limited_per_caller_and_over_all() -> None:
    arriving, settings = ArrivingBytes(), limits(max_arriving_mb=3, max_arriving_mb_per_caller=2)
    first, second, other = (arriving.open(caller, settings) for caller in (ADA, ADA, BOB))

    first.add(MIB)
    second.add(MIB)
    with pytest.raises(RateLimited, match=r"2 MiB \(limits.max_arriving_mb_per_caller\)"):
        first.add(1)
    other.add(MIB)
    with pytest.raises(Overloaded, match=r"3 MiB of requests that still arrive \(limits.max_arriving_mb\)"):
        other.add(1)


def test_bytes_that_have_arrived_no_longer_count() -> None:
    arriving, settings = ArrivingBytes(), limits(max_arriving_mb=2, max_arriving_mb_per_caller=1)
    first, second = arriving.open(ADA, settings), arriving.open(ADA, settings)

    first.add(MIB)
    assert REGISTRY.get_sample_value("llm_proxy_arriving_bytes") == 1048576
    first.release()
    first.release()
    assert REGISTRY.get_sample_value("llm_proxy_arriving_bytes") == 0
    second.add(MIB)


def test_participant_and_user_of_one_name_are_two_callers() -> None:
    arriving, settings = ArrivingBytes(), limits(max_arriving_mb=2, max_arriving_mb_per_caller=1)

    arriving.open(ADA, settings).add(MIB)
    arriving.open(Caller("p", user="ada"), settings).add(MIB)


def test_request_that_starts_while_the_server_drains_is_rejected() -> None:
    capacity = Capacity()

    capacity.begin_drain()

    assert capacity.draining
    with pytest.raises(Draining):
        capacity.check(limits(max_streams=10), "p")


def test_request_that_ends_in_its_own_drain_does_not_disturb_the_others() -> None:
    class EndsAtOnce(Request):
        def drain(self) -> None:
            super().drain()
            capacity.discard(self)

    capacity = Capacity()
    requests = [EndsAtOnce(), EndsAtOnce(), EndsAtOnce()]
    for request in requests:
        capacity.add(request, "p")

    capacity.begin_drain()

    assert [request.drained for request in requests] == [1, 1, 1]
    assert len(capacity) == 0


@pytest.fixture(params=["add", "add_arriving"])
def busy(request: pytest.FixtureRequest) -> tuple[Capacity, Request]:
    capacity, running = Capacity(), Request()
    getattr(capacity, request.param)(running, "p")
    return capacity, running


def test_wait_for_idle_returns_when_the_last_request_ends(busy: tuple[Capacity, Request]) -> None:
    capacity, running = busy

    async def run() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(5, capacity.discard, running)
        await capacity.wait_idle(30)
        return loop.time()

    assert virtual_time.run(run()) == 5


@pytest.mark.parametrize("last", ["arriving", "running"])
def test_wait_for_idle_waits_for_arriving_and_running_requests(last: str) -> None:
    async def run() -> float:
        capacity, arriving, running = Capacity(), Request(), Request()
        capacity.add_arriving(arriving, "p")
        capacity.add(running, "p")
        loop = asyncio.get_running_loop()
        loop.call_later(5 if last == "arriving" else 1, capacity.discard, arriving)
        loop.call_later(5 if last == "running" else 1, capacity.discard, running)
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
        capacity.add(request, "p")
        capacity.discard(request)
        await capacity.wait_idle(30)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(run()) == 0


def test_second_wait_for_idle_waits_for_requests_that_started_after_the_first() -> None:
    async def run() -> float:
        capacity, first, second = Capacity(), Request(), Request()
        loop = asyncio.get_running_loop()
        capacity.add(first, "p")
        loop.call_later(1, capacity.discard, first)
        await capacity.wait_idle(30)
        capacity.add(second, "p")
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
        capacity.add(request, "p")
        drains.begin(request, 120, 1)
        return REGISTRY.get_sample_value("llm_proxy_requests_in_flight"), REGISTRY.get_sample_value("llm_proxy_drains")

    assert virtual_time.run(run()) == (1, 1)
