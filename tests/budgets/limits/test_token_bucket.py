"""Token buckets, compared with a plain simulation of what requests have used in the end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_proxy.budgets.limits.token_bucket import UNIT_DEBT, TokenBucket, decode_bucket

LIMIT = 60
SECOND_US = 1_000_000


def test_whole_minute_comes_at_once_and_then_one_each_second() -> None:
    bucket = TokenBucket()
    bucket.drain(LIMIT, 0)
    bucket.take(60)

    assert bucket.wait_us(LIMIT, 1) == SECOND_US
    assert bucket.wait_us(LIMIT, 30) == 30 * SECOND_US
    bucket.drain(LIMIT, 10 * SECOND_US)
    assert bucket.count_free(LIMIT) == 10
    assert bucket.wait_us(LIMIT, 10) == 0
    assert bucket.wait_us(LIMIT, 11) == SECOND_US


def test_clock_that_is_set_back_drains_nothing() -> None:
    bucket = TokenBucket()
    bucket.drain(LIMIT, 100 * SECOND_US)
    bucket.take(60)
    bucket.drain(LIMIT, 40 * SECOND_US)
    assert bucket.count_free(LIMIT) == 0
    bucket.drain(LIMIT, 41 * SECOND_US)
    assert bucket.count_free(LIMIT) == 1


def test_rest_that_has_drained_already_is_not_given_back() -> None:
    bucket = TokenBucket()
    bucket.drain(LIMIT, 0)
    first = bucket.take(50)
    bucket.drain(LIMIT, 60 * SECOND_US)
    bucket.take(40)
    # The bucket was empty in between, so that the 50 are gone with or without the rest.
    bucket.give_back(first, 45)
    assert bucket.debt == 40 * UNIT_DEBT


def test_text_form_is_read_back() -> None:
    bucket = TokenBucket()
    bucket.drain(LIMIT, 5)
    for _ in range(3):
        bucket.take(7)
    assert decode_bucket(bucket.encode()) == bucket


@pytest.mark.parametrize("claims", [1000])
def test_bucket_of_many_requests_stays_small(claims: int) -> None:
    bucket = TokenBucket()
    numbers = [bucket.take(1) for _ in range(claims)]
    assert len(bucket.lows) <= 64
    for number in reversed(numbers):
        bucket.give_back(number, 1)
    assert bucket.debt >= 0


@dataclass
class Taken:
    """What a request has taken at a time."""

    at_us: int
    units: int


def simulate(history: list[Taken], now_us: int) -> int:
    """Return the debt at `now_us` of requests that took these units when they began."""
    debt, last_us = 0, 0
    for taken in history:
        debt = max(0, debt - LIMIT * (taken.at_us - last_us)) + taken.units * UNIT_DEBT
        last_us = taken.at_us
    return max(0, debt - LIMIT * (now_us - last_us))


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 50), st.integers(0, 50), st.integers(0, 10)), max_size=40)
)
def test_debt_is_that_of_what_requests_have_used_in_the_end(steps: list[tuple[int, int, int, int]]) -> None:
    bucket, history, numbers, open_claims, now_us = TokenBucket(), [], [], [], 0
    for wait_ms, units, rest, ended in steps:
        now_us += wait_ms * 1000
        bucket.drain(LIMIT, now_us)
        numbers.append(bucket.take(units))
        history.append(Taken(now_us, units))
        open_claims.append(len(history) - 1)
        if ended < len(open_claims):
            index = open_claims.pop(ended)
            given = min(rest, history[index].units)
            bucket.give_back(numbers[index], given)
            history[index].units -= given
        assert bucket.debt == simulate(history, now_us)
