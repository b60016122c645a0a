"""What the relay keeps for the dashboard: exact sums, a bounded number of requests, estimates that cost little."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from tests.ledger.sample_records import CALLER, COST, START, make_intent, make_record
from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import NotAuthenticated
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.usage import Basis
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.local.dashboard.feed import Feed
from tornado_proxy.local.dashboard.messages import MAX_MODELS, MAX_RUNNING, MINUTES
from tornado_proxy.local.dashboard.running import RunningRequests
from tornado_proxy.observability.access_log import RequestLine


def make_feed(now: list[datetime]) -> Feed:
    return Feed(lambda: now[0])


def test_sums_are_those_of_all_requests_whether_or_not_they_are_sent() -> None:
    feed = make_feed([START + timedelta(seconds=2)])
    for number in range(900):
        feed.on_record(make_record(make_intent(f"req_{number}")))

    update = feed.take_update((), 0)
    assert update is not None
    # 900 x 1100 tokens; 900 x 0.00225, 900 x 0.0001125 and their sum.
    assert (update.sums.requests, update.sums.tokens) == (900, 990_000)
    assert (update.sums.subtotal, update.sums.surcharge, update.sums.total) == (
        Decimal("2.025"),
        Decimal("0.10125"),
        Decimal("2.12625"),
    )
    assert (update.minutes[-1], sum(update.minutes[:-1])) == (Decimal("2.12625"), 0)
    assert [finished.request_id for finished in update.finished] == [f"req_{number}" for number in range(700, 800)]


def test_requests_follow_in_later_updates_until_all_are_sent() -> None:
    feed = make_feed([START])
    for number in range(150):
        feed.on_record(make_record(make_intent(f"req_{number}")))

    updates = [feed.take_update((), 0) for _ in range(3)]

    assert [update and len(update.finished) for update in updates] == [100, 50, None]


def test_minutes_pass_without_requests() -> None:
    now = [START]
    feed = make_feed(now)
    feed.on_record(make_record(make_intent("req_1")))
    feed.take_update((), 0)
    assert feed.take_update((), 0) is None

    now[0] += timedelta(minutes=3)
    update = feed.take_update((), 0)

    assert update is not None
    assert (len(update.minutes), update.minutes[-4], update.minutes[-1]) == (MINUTES, Decimal("0.0023625"), 0)


def test_models_beyond_the_limit_are_summed_together() -> None:
    feed = make_feed([START])
    for number in range(MAX_MODELS + 20):
        feed.on_record(make_record(make_intent(f"req_{number}"), model=f"invented-{number}" * 100))

    update = feed.take_update((), 0)

    assert update is not None
    assert len(update.models) == MAX_MODELS + 1
    assert {entry.model: entry.sums.requests for entry in update.models}["(other models)"] == 20
    assert max(len(entry.model) for entry in update.models) == 200


def test_failures_refusals_and_warnings_are_told_apart() -> None:
    feed = make_feed([START])
    feed.on_record(make_record(make_intent("left"), outcome=Outcome.CLIENT_CLOSED, status=499))
    feed.on_record(make_record(make_intent("failed"), status=429), "slow down")
    feed.on_record(make_record(make_intent("cut"), outcome=Outcome.UPSTREAM_BROKEN, basis=Basis.UNSETTLED))
    feed.on_refusal(NotAuthenticated("no bearer"), RequestLine("POST", "/v1/responses"))
    feed.on_warning("tornado_proxy.ledger", "the disk is full")

    update = feed.take_update((), 0)

    assert update is not None
    assert [(finished.is_error, finished.message) for finished in update.finished] == [
        (False, ""),
        (True, "slow down"),
        (True, ""),
    ]
    assert (update.error_count, update.refused_count, update.sums.unsettled, update.sums.requests) == (2, 1, 1, 3)
    assert [(refused.status, refused.method, refused.path) for refused in update.refused] == [
        (401, "POST", "/v1/responses"),
        (0, "", ""),
    ]


class CountingMeter:
    """A meter whose estimates take `seconds` of the clock."""

    def __init__(self, clock: list[float], seconds: float = 0.0, costs: tuple[Cost, ...] = (COST,)) -> None:
        self._clock, self._seconds, self._costs = clock, seconds, costs
        self.estimates = 0

    def estimate(self) -> tuple[Cost, ...]:
        self.estimates += 1
        self._clock[0] += self._seconds
        return self._costs


def follow(requests: RunningRequests, name: str, meter: CountingMeter) -> None:
    requests.follow(RunningRequest(CALLER, name, "openai", "POST", "/v1/responses", "gpt-5.4", START, meter))


def test_requests_in_flight_have_an_age_and_what_they_cost_so_far() -> None:
    clock = [100.0]
    requests = RunningRequests(lambda: clock[0])
    follow(requests, "known", CountingMeter(clock))
    follow(requests, "unpriced", CountingMeter(clock, costs=(replace(COST, faults=("no price",)),)))
    follow(requests, "unknown", CountingMeter(clock, costs=()))
    clock[0] += 12.5

    known, unpriced, unknown = requests.describe()

    assert (known.age_ms, known.tokens, known.total) == (12_500, 1_100, Decimal("0.0023625"))
    assert (unpriced.tokens, unpriced.total) == (1_100, None)
    assert (unknown.tokens, unknown.total) == (None, None)
    requests.unfollow("known")
    assert [request.request_id for request in requests.describe()] == ["unpriced", "unknown"]


def test_estimates_take_at_most_a_hundredth_of_the_time() -> None:
    clock = [0.0]
    requests = RunningRequests(lambda: clock[0])
    meters = [CountingMeter(clock, 0.0015) for _ in range(MAX_RUNNING + 10)]
    for number, meter in enumerate(meters):
        follow(requests, str(number), meter)

    for _ in range(40):
        before = clock[0]
        assert len(requests.describe()) == MAX_RUNNING
        # One turn ends with the estimate that passes 2 ms.
        assert clock[0] - before <= 0.0031
        clock[0] += 0.25

    assert sum(meter.estimates for meter in meters) == 80
    assert all(meter.estimates <= 2 for meter in meters)


def test_estimate_of_a_session_is_dropped_when_its_work_has_a_record() -> None:
    clock = [0.0]
    requests = RunningRequests(lambda: clock[0])
    meter = CountingMeter(clock, 0.01)
    follow(requests, "session", meter)
    requests.describe()
    meter._costs = ()

    assert requests.describe()[0].tokens == 1_100
    requests.drop_estimate("session")
    assert requests.describe()[0].tokens is None
