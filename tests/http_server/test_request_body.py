"""Timeouts of request bodies that stall, with fake requests and a fake clock."""

from __future__ import annotations

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


def test_each_byte_restarts_the_timeout() -> None:
    timeouts, request = BodyTimeouts(), FakeRequest()
    timeouts.begin(request)

    for now in range(0, 600, 50):
        request.received_bytes += 1
        timeouts.check(float(now))

    assert request.timeouts == 0


def test_ended_request_does_not_time_out() -> None:
    timeouts, request = BodyTimeouts(), FakeRequest()
    timeouts.begin(request)
    timeouts.check(0.0)
    timeouts.end(request)

    timeouts.check(1000.0)

    assert request.timeouts == 0
