"""The stops of spend brakes: each is told of, whatever fails and whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest

from tests.harness import TIMEOUT_S
from tornado_proxy import tasks
from tornado_proxy.domain.budgets.brake import Brake
from tornado_proxy.domain.errors import LedgerUnavailable
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.gateway.budgets.brakes import ACTOR, SpendBrakes
from tornado_proxy.ledger.backends import make_backend
from tornado_proxy.state import stops
from tornado_proxy.state.store import StateStore
from tornado_proxy.state.watcher import StateWatcher

BRAKE = Brake("1", "project", "ada", Decimal(6), Decimal(5))
TARGET = StopTarget(BRAKE.project_id, BRAKE.participant)

Result = TypeVar("Result")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    """Return the state of a ledger."""
    store = StateStore(make_backend(tmp_path / "ledger.db"))
    yield store
    store.close()


class UnconfirmedState(StateWatcher):
    """A state whose first change is made, and whose COMMIT is not confirmed."""

    is_broken = True

    async def change(self, make_change: Callable[[StateStore], Result]) -> Result:
        """Make the change, and fail once."""
        result = await super().change(make_change)
        if self.is_broken:
            self.is_broken = False
            raise LedgerUnavailable("the connection broke in COMMIT")
        return result


@dataclass
class Effects:
    """Records the alerts and the forgotten brakes; `is_stored` says whether alerts are stored."""

    is_stored: bool = True
    told: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    has_told: asyncio.Event = field(default_factory=asyncio.Event)

    def on_stop(self, brake: Brake, stop: Stop, on_stored: Callable[[], None]) -> None:
        """Tell of a stop."""
        self.told.append(stop.id)
        self.has_told.set()
        if self.is_stored:
            on_stored()

    async def forget_brake(self, brake_id: str) -> None:
        """Forget a brake."""
        self.forgotten.append(brake_id)


async def apply(brakes: SpendBrakes, effects: Effects, times: int) -> None:
    """Apply the brake, as the thread of the budgets does each second until it is forgotten."""
    for _ in range(times):
        brakes.apply(BRAKE)
        (task,) = [task for task in tasks._running if task.get_name() == "spend brake"]
        done = task if effects.is_stored else asyncio.ensure_future(effects.has_told.wait())
        await asyncio.wait_for(done, TIMEOUT_S)


def run(state: StateWatcher, effects: Effects, times: int = 1) -> None:
    """Apply the brake in a process."""
    asyncio.run(apply(SpendBrakes(state, effects, effects.on_stop), effects, times))  # type: ignore[arg-type]


def make_state(store: StateStore) -> StateWatcher:
    """Return the state of a process."""
    return StateWatcher(store, lambda state: None)


def test_stop_is_made_told_of_and_forgotten(store: StateStore) -> None:
    effects = Effects()
    run(make_state(store), effects)

    assert [stop.target for stop in stops.list_stops(store)] == [TARGET]
    assert (effects.told, effects.forgotten) == (["stop_1"], ["1"])


def test_stop_whose_commit_is_not_confirmed_is_told_of(store: StateStore) -> None:
    effects = Effects()
    run(UnconfirmedState(store, lambda state: None), effects, times=2)

    assert (effects.told, effects.forgotten) == (["stop_1"], ["1"])


def test_stop_of_a_process_that_died_before_its_alert_was_stored_is_told_of(store: StateStore) -> None:
    dying, other = Effects(is_stored=False), Effects()
    run(make_state(store), dying)
    assert (dying.told, dying.forgotten) == (["stop_1"], [])

    run(make_state(store), other)

    assert (other.told, other.forgotten) == (["stop_1"], ["1"])


@pytest.mark.parametrize("is_lifted", [True, False])
def test_stop_that_was_lifted_or_is_an_operators_is_not_told_of(is_lifted: bool, store: StateStore) -> None:
    if is_lifted:
        made = stops.make(store, ACTOR, TARGET, stop_id="stop_1")
        stops.lift(store, "cli:root", made.id)
    else:
        stops.make(store, "cli:root", TARGET)
    effects = Effects()
    run(make_state(store), effects)

    assert (effects.told, effects.forgotten) == ([], ["1"])
