"""The running requests of a viewer: whose they are, estimates that all viewers share, bounded streams."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.dashboard.sample_ledger import make_cost
from tornado_proxy.dashboard.requests.live_requests import (
    MAX_SHARED,
    MAX_SHOWN,
    MAX_STREAMS,
    LiveFeed,
    LiveRequests,
    OwnRequests,
    SharedRequests,
)
from tornado_proxy.dashboard.viewer import Viewer
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import Overloaded
from tornado_proxy.domain.identity import Caller
from tornado_proxy.gateway.recorder import RunningRequest

NOW = datetime(2026, 3, 14, 10, 30, tzinfo=UTC)
ADA, BOB = Caller("p", participant="ada"), Caller("p", participant="bob")


@dataclass
class Meter:
    """A stream of 1,000 tokens, which counts how often it is asked."""

    asked: int = 0

    def estimate(self) -> tuple[Cost, ...]:
        self.asked += 1
        return (make_cost(1000),)


def run(caller: Caller, number: int, meter: Meter) -> RunningRequest:
    started_at = NOW - timedelta(seconds=7)
    return RunningRequest(caller, f"r{number}", "openai", "POST", "/v1/responses", "gpt-5.4", started_at, meter)


def make_feed(own: OwnRequests, *others: SharedRequests) -> LiveFeed:
    async def list_others() -> tuple[SharedRequests, ...]:
        return others

    return LiveFeed(own, list_others)


def look(feed: LiveFeed, *viewers: Viewer) -> list[LiveRequests]:
    async def look_all() -> list[LiveRequests]:
        return [await feed.look(viewer, NOW) for viewer in viewers]

    return asyncio.run(look_all())


def test_viewer_sees_its_own_requests_and_their_cost() -> None:
    meter = Meter()
    running = [run(ADA, 1, meter), run(BOB, 2, meter), run(Caller("q", participant="ada"), 3, meter)]
    feed = make_feed(OwnRequests(lambda: running))
    admin = Caller("p", user="lead", admin=True)

    own, project, everything = look(feed, Viewer(ADA), Viewer(admin), Viewer())

    assert [row["request_id"] for row in own.rows] == ["r1"]
    assert (own.rows[0]["cost"], own.rows[0]["seconds"]) == ("0.0013125", 7)
    assert [row["request_id"] for row in project.rows] == ["r1", "r2"]
    assert (everything.count, str(everything.cost)) == (3, "0.003937500000")


def test_viewers_share_the_estimates_of_a_second() -> None:
    meter, time_s = Meter(), [10.0]
    feed = make_feed(OwnRequests(lambda: [run(ADA, 1, meter)], lambda: time_s[0]))

    look(feed, Viewer(), Viewer(ADA), Viewer())
    assert meter.asked == 1
    time_s[0] += 1
    look(feed, Viewer())
    assert meter.asked == 2


def test_rows_are_bounded_and_all_requests_are_counted() -> None:
    meter = Meter()
    feed = make_feed(OwnRequests(lambda: [run(ADA, number, meter) for number in range(MAX_SHOWN + 50)]))

    (live,) = look(feed, Viewer())

    assert (len(live.rows), live.count, meter.asked) == (MAX_SHOWN, MAX_SHOWN + 50, MAX_SHOWN)


def test_requests_of_other_processes_are_shown_to_their_own_viewers() -> None:
    meter = Meter()
    other = OwnRequests(lambda: [run(BOB, 2, meter), run(ADA, 3, meter), run(Caller("q", user="ada"), 4, meter)])
    feed = make_feed(OwnRequests(lambda: [run(ADA, 1, meter)]), asyncio.run(other.share()))

    own, project, everything = look(feed, Viewer(ADA), Viewer(Caller("p", user="lead", admin=True)), Viewer())

    assert [row["request_id"] for row in own.rows] == ["r1", "r3"]
    assert [row["request_id"] for row in project.rows] == ["r1", "r2", "r3"]
    assert (everything.count, str(everything.cost)) == (4, "0.005250000000")
    assert (own.rows[1]["cost"], own.rows[1]["seconds"]) == ("0.0013125", 7)


def test_requests_that_another_process_does_not_list_are_counted_for_those_who_see_their_project() -> None:
    meter = Meter()
    other = OwnRequests(
        lambda: [run(BOB if number % 2 else Caller("q", user="eve"), number, meter) for number in range(MAX_SHARED + 9)]
    )
    feed = make_feed(OwnRequests(list), asyncio.run(other.share()))

    bob, project, everything = look(feed, Viewer(BOB), Viewer(Caller("p", user="lead", admin=True)), Viewer())

    assert (bob.count, project.count, everything.count) == (MAX_SHARED // 2, MAX_SHARED // 2 + 4, MAX_SHARED + 9)
    assert meter.asked == MAX_SHARED


def test_streams_of_all_viewers_are_bounded() -> None:
    feed = make_feed(OwnRequests(list))
    with ExitStack() as streams:
        for number in range(MAX_STREAMS):
            streams.enter_context(feed.streams.count(Viewer(Caller("p", participant=f"v{number}")).asker))
        with pytest.raises(Overloaded, match="too many pages watch"), feed.streams.count(Viewer().asker):
            pass
    with feed.streams.count(Viewer().asker):
        pass
