"""The changes of stops, on both databases."""

from __future__ import annotations

import pytest

from tests.state.conftest import MakeStore
from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.stop import StopTarget
from tornado_proxy.state import stops
from tornado_proxy.state.store import StateStore

ADA = StopTarget("project-a", "ada")


def test_stop_is_part_of_the_state_of_every_process_until_it_is_lifted(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()

    stop = stops.make(store, "cli:root", ADA, "runaway")

    assert other.read().stops == (stop,)
    assert stops.find_stop(other, stop.id) == stop
    assert stops.lift(other, "admin", stop.id) == stop
    assert store.read().stops == ()
    assert [(change.actor, change.action) for change in store.list_changes(0)] == [
        ("cli:root", "stopped"),
        ("admin", "resumed"),
    ]


def test_second_stop_of_the_same_target_is_refused(store: StateStore) -> None:
    first = stops.make(store, "cli:root", ADA)
    with pytest.raises(BadRequest, match=f"was stopped by cli:root .* already; its id is {first.id}"):
        stops.make(store, "admin", ADA)
    stops.make(store, "admin", StopTarget("project-a"))
    assert [stop.target for stop in stops.list_stops(store)] == [ADA, StopTarget("project-a")]


def test_stop_that_is_not_there_cannot_be_lifted(store: StateStore) -> None:
    with pytest.raises(NotFound, match="there is no stop 'stop_none'"):
        stops.lift(store, "admin", "stop_none")
    assert store.read_generation() == 0


@pytest.mark.parametrize(
    ("target", "reason", "message"),
    [
        (StopTarget(), "", "needs a project, a participant or an agent session"),
        (StopTarget("project-b"), "", "is no configured project"),
        (StopTarget(participant=""), "", "participant must have 1 to 256"),
        (StopTarget(agent_session="a\nb"), "", "agent_session must have"),
        (ADA, "x" * 257, "reason must have"),
    ],
)
def test_stop_is_checked(target: StopTarget, reason: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        stops.check_stop(target, reason, {"project-a"})
