"""A caller that is refused again and again has a line for the first refusal, and one with the number of the others."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tornado_proxy.domain.errors import BadRequest, BudgetExceeded, BudgetReserved, RequestError
from tornado_proxy.domain.identity import Caller
from tornado_proxy.observability import repeated_refusals
from tornado_proxy.observability.repeated_refusals import RepeatedRefusals

ADA, EVE = Caller("p", participant="ada"), Caller("p", participant="eve")
SPENT = BudgetExceeded("spent")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> RepeatedRefusals:
    return RepeatedRefusals(clock)


def read_lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    names = ("participant", "code", "status", "count", "last_request_id")
    lines = [tuple(vars(line)[name] for name in names) for line in caplog.records]
    caplog.clear()
    return lines


def test_further_refusals_of_a_minute_are_one_line_with_their_number(
    refusals: RepeatedRefusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    assert [refusals.count(f"r{number}", SPENT, ADA) for number in range(5)] == [False, True, True, True, True]
    clock.now = 59.9
    refusals.flush(ended_only=True)
    assert read_lines(caplog) == []
    clock.now = 60
    refusals.flush(ended_only=True)

    assert read_lines(caplog) == [("ada", "budget_exceeded", 402, 4, "r4")]
    assert not refusals.count("r5", SPENT, ADA)
    refusals.flush()
    assert read_lines(caplog) == []


def test_next_minute_begins_with_a_line_also_without_a_flush(
    refusals: RepeatedRefusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refusals.count("r0", SPENT, ADA)
    refusals.count("r1", SPENT, ADA)
    clock.now = 61

    assert not refusals.count("r2", SPENT, ADA)
    assert refusals.count("r3", SPENT, ADA)
    assert read_lines(caplog) == [("ada", "budget_exceeded", 402, 1, "r1")]


@pytest.mark.parametrize(
    ("error", "caller"), [(SPENT, EVE), (BudgetReserved("later"), ADA), (SPENT, Caller("q", participant="ada"))]
)
def test_other_caller_or_code_has_a_line_of_its_own(
    refusals: RepeatedRefusals, error: RequestError, caller: Caller
) -> None:
    refusals.count("r0", SPENT, ADA)

    assert not refusals.count("r1", error, caller)


def test_fault_of_a_request_has_a_line_each(refusals: RepeatedRefusals) -> None:
    assert not any(refusals.count(f"r{number}", BadRequest("no model"), ADA) for number in range(3))


def test_callers_that_are_counted_are_bounded(refusals: RepeatedRefusals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_refusals, "MAX_COUNTED", 1)
    refusals.count("r0", SPENT, ADA)

    assert [refusals.count(f"r{number}", SPENT, EVE) for number in range(3)] == [False, False, False]
    assert refusals.count("r4", SPENT, ADA)
