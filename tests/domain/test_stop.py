"""What a stop covers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tornado_proxy.domain.identity import Caller
from tornado_proxy.domain.stop import Stop, StopTarget

ADA = Caller("project-a", participant="ada")
USER = Caller("project-a", user="ada", issuer="https://id.example.com")


@pytest.mark.parametrize(
    ("target", "covered"),
    [
        (StopTarget("project-a"), True),
        (StopTarget("project-b"), False),
        (StopTarget(participant="ada"), True),
        (StopTarget(participant="eve"), False),
        (StopTarget(agent_session="s1"), True),
        (StopTarget(agent_session="s2"), False),
        (StopTarget("project-a", "ada", "s1"), True),
        (StopTarget("project-b", "ada"), False),
        (StopTarget("project-a", agent_session="s2"), False),
    ],
)
def test_stop_covers_what_matches_all_of_its_members(target: StopTarget, *, covered: bool) -> None:
    assert target.covers(ADA, "s1") is covered
    assert target.covers(USER, "s1") is covered


def test_request_without_an_agent_session_matches_none() -> None:
    assert not StopTarget(agent_session="s1").covers(ADA, None)


def test_stop_says_who_has_stopped_what_when_and_why() -> None:
    at = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
    stop = Stop("stop_1", StopTarget("project-a", agent_session="s1"), "cli:root", at, "runaway")
    assert str(stop) == (
        "agent session s1 of project project-a was stopped by cli:root at 2026-11-28T09:00:00Z (runaway)"
    )
