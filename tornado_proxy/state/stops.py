"""The changes of stops: make and lift.  For the command line and for the admin port."""

from __future__ import annotations

import os
from collections.abc import Container
from datetime import UTC, datetime

from tornado_proxy.domain.errors import BadRequest, NotFound
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.state import stop_table
from tornado_proxy.state.guarded_changes import Changes
from tornado_proxy.state.store import StateStore

#: Random bytes of an id.
_ID_BYTES = 12

#: What the table of changes calls a new stop.
_STOPPED = "stopped"

#: Characters of a name and of a reason.
MAX_CHARACTERS = 256


def check_stop(target: StopTarget, reason: str, projects: Container[str]) -> None:
    """Check the target and the reason of a new stop; `projects` are the ids of the configured projects.

    Raises:
        BadRequest: one of them breaks a rule.
    """
    named = {"participant": target.participant, "agent_session": target.agent_session, "reason": reason or None}
    if target == StopTarget():
        raise BadRequest("a stop needs a project, a participant or an agent session")
    for name, value in named.items():
        if value is not None and not (0 < len(value) <= MAX_CHARACTERS and value.isprintable()):
            raise BadRequest(f"{name} must have 1 to {MAX_CHARACTERS} printable characters", param=name)
    if target.project_id is not None and target.project_id not in projects:
        raise BadRequest(f"{target.project_id[:64]!r} is no configured project", param="project_id")


def make(changes: Changes, actor: str, target: StopTarget, reason: str = "", *, stop_id: str | None = None) -> Stop:
    """Stop `target` and return the stop.

    Args:
        changes: Makes the change.
        actor: Who makes it.
        target: The stopped project, participant or session.
        reason: A text for the clients.
        stop_id: The id of the stop, for one that several processes try to make; None for a new id.

    Raises:
        BadRequest: it is stopped already, or was stopped with this id before.
    """
    now = datetime.now(UTC)
    stored = now.replace(microsecond=now.microsecond // 1000 * 1000)  # the table has milliseconds
    stop = Stop(stop_id or f"stop_{os.urandom(_ID_BYTES).hex()}", target, actor, stored, reason)
    with changes.change(actor, _STOPPED, stop.id) as db:
        if stop_id is not None and stop_table.count_changes(db, _STOPPED, stop_id) > 1:  # this one is counted too
            raise BadRequest(f"{stop_id} was made before, and may have been lifted")
        for earlier in stop_table.read_all(db):
            if earlier.target == target:
                raise BadRequest(f"{earlier} already; its id is {earlier.id}")
        stop_table.insert(db, stop)
    return stop


def lift(changes: Changes, actor: str, stop_id: str) -> Stop:
    """Lift a stop and return it.

    Raises:
        NotFound: there is no such stop.
    """
    with changes.change(actor, "resumed", stop_id) as db:
        stop = _find(stop_table.read_all(db), stop_id)
        stop_table.delete(db, stop_id)
    return stop


def list_stops(store: StateStore) -> list[Stop]:
    """Return all stops, oldest first."""
    with store.reading() as db:
        return stop_table.read_all(db)


def find_stop(store: StateStore, stop_id: str) -> Stop:
    """Return a stop.

    Raises:
        NotFound: there is no such stop.
    """
    return _find(list_stops(store), stop_id)


def _find(stops: list[Stop], stop_id: str) -> Stop:
    stop = next((stop for stop in stops if stop.id == stop_id), None)
    if stop is None:
        raise NotFound(f"there is no stop {stop_id[:64]!r}; it may have been lifted")
    return stop
