"""The order of polls, on times that the tests name."""

from __future__ import annotations

from datetime import UTC, datetime

from tornado_proxy.domain.record import PendingRequest
from tornado_proxy.metering.poll_schedule import Poll, PollSchedule, PollState

START = datetime(2026, 11, 28, tzinfo=UTC)


def add(schedule: PollSchedule, *names: str, at: float = 0, provider: str = "openai", scan: int = 1) -> None:
    for name in names:
        schedule.add(PendingRequest(f"req_{name}", "p", provider, "/v1/responses", name, None, START), at, scan)


def take(schedule: PollSchedule, now: float) -> list[Poll]:
    return list(schedule.take(now))


def names(polls: list[Poll]) -> list[str]:
    return [poll.request.object_id for poll in polls]


def test_requests_are_taken_in_the_order_of_their_due_times() -> None:
    schedule = PollSchedule()
    add(schedule, "late", at=3)
    add(schedule, "early", at=1)
    add(schedule, "later", at=9)

    assert names(take(schedule, 5)) == ["early", "late"]
    assert take(schedule, 5) == []


def test_request_is_polled_at_once_and_after_short_waits_when_it_is_restarted() -> None:
    schedule = PollSchedule()
    add(schedule, *(f"resp_{number}" for number in range(20)))
    polls = take(schedule, 0)
    for poll in polls:
        poll.wait_s = 300.0
        schedule.finish(poll, 0, 0, 300)
        schedule.restart(poll.request.request_id)
    schedule.remove(polls[0])
    schedule.restart(polls[0].request.request_id)

    restarted = take(schedule, 10)

    assert [(poll.request.object_id, poll.wait_s) for poll in restarted[:2]] == [("resp_1", 1.0), ("resp_2", 1.0)]
    assert len(restarted) == 7 + 8  # of those that were polled before, and of the others


def test_wait_grows_to_its_limit() -> None:
    schedule = PollSchedule()
    add(schedule, "a")
    (poll,) = take(schedule, 0)
    due = []
    for _ in range(4):
        schedule.finish(poll, poll.due_at, poll.due_at, max_wait_s=2)
        due.append(poll.due_at)
        take(schedule, poll.due_at)

    assert due == [1, 2.5, 4.5, 6.5]


def test_poll_that_took_long_is_due_after_those_that_wait() -> None:
    schedule = PollSchedule()
    add(schedule, "slow")
    (slow,) = take(schedule, 0)
    add(schedule, "waiting", at=30)

    schedule.finish(slow, 0, 30, max_wait_s=30)

    assert names(take(schedule, 31)) == ["waiting", "slow"]


def test_each_provider_has_its_own_slots() -> None:
    schedule = PollSchedule()
    add(schedule, *(f"a{number}" for number in range(10)))
    add(schedule, "b", provider="anthropic")

    taken = take(schedule, 0)

    assert names(taken) == [*(f"a{number}" for number in range(8)), "b"]
    schedule.finish(taken[0], 0, 0, 30)
    assert names(take(schedule, 0)) == ["a8"]


def test_request_of_a_client_goes_first_and_has_a_slot_of_its_own() -> None:
    schedule = PollSchedule()
    add(schedule, *(f"a{number}" for number in range(8)))
    add(schedule, "fetched", at=100)
    take(schedule, 0)

    assert schedule.request_now("fetched")
    assert not schedule.request_now("unknown")

    assert names(take(schedule, 0)) == ["fetched"]


def test_running_request_is_not_polled_twice_at_the_same_time() -> None:
    schedule = PollSchedule()
    add(schedule, "a")
    (poll,) = take(schedule, 0)

    schedule.request_now("a")

    assert take(schedule, 50) == []
    schedule.finish(poll, 0, 50, 30)
    assert names(take(schedule, 50)) == ["a"]


def test_settled_request_is_forgotten() -> None:
    schedule = PollSchedule()
    add(schedule, "a", "b")
    (poll, _) = take(schedule, 0)

    schedule.remove(poll)
    schedule.finish(poll, 0, 0, 30)
    schedule.remove(poll)

    assert schedule.find("openai", "a") is None
    assert schedule.find("anthropic", "b") is None
    assert names(take(schedule, 100)) == []
    assert schedule.counts == {"waiting": 1, "missing": 0, "no_key": 0, "given_up": 0}


def test_request_that_later_scans_do_not_find_is_forgotten() -> None:
    schedule = PollSchedule()
    add(schedule, "settled elsewhere", "pending")
    add(schedule, "pending", scan=2)

    schedule.remove_older(2)

    assert names(take(schedule, 0)) == ["pending"]


def test_states_are_counted() -> None:
    schedule = PollSchedule()
    add(schedule, "a", "b")
    (poll, _) = take(schedule, 0)

    schedule.set_state(poll, PollState.NO_KEY)

    assert schedule.counts == {"waiting": 1, "missing": 0, "no_key": 1, "given_up": 0}
