"""Timeouts of request bodies that stall, with fake requests and a fake clock."""

from __future__ import annotations

import pytest

from tornado_proxy.http_server.request_body import BodyTimeouts


class FakeRequest:
    """A request that counts its timeouts."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.timeouts = 0

    def on_body_timeout(self) -> None:
        self.timeouts += 1


def test_stalled_request_times_out_once() -> None:
    timeouts, request = BodyTimeouts(), FakeRequest()
    timeouts.begin(request)

    timeouts.check(100.0)
    timeouts.check(160.0)
    assert request.timeouts == 0

    timeouts.check(160.1)
    timeouts.check(1000.0)
    assert request.timeouts == 1


@pytest.mark.parametrize(
    ("bytes_per_s", "timeouts"),
    [
        pytest.param(600, 0, id="600 bytes a second"),
        pytest.param(400, 1, id="400 bytes a second"),
        pytest.param(1, 1, id="one byte a second"),
    ],
)
def test_body_needs_five_hundred_bytes_a_second(bytes_per_s: int, timeouts: int) -> None:
    body_timeouts, request = BodyTimeouts(), FakeRequest()
    body_timeouts.begin(request)

    for now in range(0, 600, 10):
        request.received_bytes = now * bytes_per_s
        body_timeouts.check(float(now))

    assert request.timeouts == timeouts


def test_body_that_arrived_fast_times_out_when_it_starts_to_trickle() -> None:
    body_timeouts, request = BodyTimeouts(), FakeRequest()
    body_timeouts.begin(request)
    request.received_bytes = 10_000_000
    body_timeouts.check(0.0)

    for now in range(10, 70, 10):
        request.received_bytes += 10
        body_timeouts.check(float(now))
    assert request.timeouts == 0

    body_timeouts.check(70.0)
    assert request.timeouts == 1


def test_ended_request_does_not_time_out() -> None:
    timeouts, request = BodyTimeouts(), FakeRequest()
    timeouts.begin(request)
    timeouts.check(0.0)
    timeouts.end(request)

    timeouts.check(1000.0)

    assert request.timeouts == 0
