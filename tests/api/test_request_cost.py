from __future__ import annotations

import contextlib

import pytest

from tornado_proxy.api.request_cost import is_final, make_lookup, make_waiters, read_wait
from tornado_proxy.domain.errors import NotAllowed, RateLimited
from tornado_proxy.domain.identity import Caller


def test_waits_of_one_caller_are_limited_and_freed() -> None:
    waiters = make_waiters()
    with contextlib.ExitStack() as waiting:
        for _ in range(8):
            waiting.enter_context(waiters.count("ada"))
        with pytest.raises(RateLimited), waiters.count("ada"):
            pass
        with waiters.count("eve"):
            pass

    with waiters.count("ada"):
        pass


def test_waits_of_all_callers_are_limited() -> None:
    waiters = make_waiters()
    with contextlib.ExitStack() as waiting:
        for number in range(64):
            waiting.enter_context(waiters.count(f"caller {number}"))
        with pytest.raises(RateLimited), waiters.count("one more"):
            pass


def test_caller_is_selected_by_every_part_of_its_identity() -> None:
    participant, user = Caller("p", participant="ada"), Caller("p", user="ada", issuer="https://id")

    assert make_lookup("r", participant, "p").caller == (("participant", "ada"),)
    assert make_lookup("r", user, "p").caller == (("user", "ada"), ("issuer", "https://id"))
    assert make_lookup("r", Caller("p", user="eve", admin=True), "p").caller == ()
    with pytest.raises(NotAllowed):
        make_lookup("r", Caller("p"), "p")


def test_cost_is_final_if_no_record_is_pending() -> None:
    assert not is_final([])
    assert not is_final([{"basis": "reported"}, {"basis": "pending"}])
    assert is_final([{"basis": "reported"}, {"basis": "unsettled"}])


def test_wait_has_a_default_of_zero() -> None:
    assert (read_wait({}), read_wait({"wait": ["2.5"]})) == (0, 2.5)
