"""Tells the other processes of a ledger to reload their files: a change of the state that changes nothing else.

process A: POST /reload ──> reloads ──> request(): generation + 1, a row of state_changes
process B: StateWatcher, within a second ──> find_foreign() ──> reloads
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from tornado_proxy.domain.state import StateChange
from tornado_proxy.state.guarded_changes import Changes

ACTION = "reload requested"

#: Random bytes of an id.
_ID_BYTES = 12


def make_id() -> str:
    """Return the id of a new request, by which its own process knows it."""
    return f"reload_{os.urandom(_ID_BYTES).hex()}"


def request(changes: Changes, actor: str, request_id: str) -> None:
    """Store a request."""
    with changes.change(actor, ACTION, request_id):
        pass


def find_foreign(changes: Iterable[StateChange], own_ids: set[str]) -> bool:
    """Return True if another process requests a reload; remove the ids of own requests that are among the changes."""
    requested = {change.subject for change in changes if change.action == ACTION}
    foreign = requested - own_ids
    own_ids -= requested
    return bool(foreign)
