"""Refuses the requests that a stop covers, and ends those under way.

state (each second) ──> snapshot ──> require_not_stopped: 403
                           ├──────> enforce_stops: streams are cut, sessions closed with 1008, calls hung up
                           └──────> metering/stopped_work.py: background responses and batches are cancelled
"""

from __future__ import annotations

import asyncio

from tornado_proxy.domain.errors import Stopped
from tornado_proxy.domain.stop import StopTarget
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.admission.capacity import Capacity
from tornado_proxy.gateway.context import RequestContext
from tornado_proxy.providers.contract import Endpoint, HttpEndpoint
from tornado_proxy.snapshot import SnapshotHolder
from tornado_proxy.wire.client_facts import attribute_request

#: Seconds between two searches for requests that a stop covers.  Again and again, because a request that was admitted
#: just before the stop starts after it.
_INTERVAL_S = 0.25


def require_not_stopped(context: RequestContext[Endpoint], agent_session: str | None = None) -> None:
    """Raise Stopped if a stop covers a request; `agent_session` is the one that the request states, if it is known."""
    if ends_work(context.endpoint):
        return
    for stop in context.snapshot.state.stops:
        if stop.target.covers(context.caller, agent_session):
            raise Stopped(f"{stop}; ask an admin of project {context.project.name} to resume it")


def ends_work(endpoint: Endpoint) -> bool:
    """Return True for an endpoint that cancels work at the provider: a stop must not keep that work running."""
    return isinstance(endpoint, HttpEndpoint) and endpoint.ends_work


def is_covered(admitted: AdmittedRequest, target: StopTarget) -> bool:
    """Return True if a stop of `target` covers an admitted request."""
    intent = admitted.intent
    return not ends_work(admitted.context.endpoint) and target.covers(intent.caller, intent.attribution.agent_session)


def begins_work(admitted: AdmittedRequest) -> bool:
    """Return True for a request that begins work which runs on, and which only the id in its response can cancel."""
    endpoint, facts = admitted.context.endpoint, admitted.facts
    return endpoint.deferred_usage is not None and (facts.background or endpoint.takes_batch)


def find_agent_session(context: RequestContext[Endpoint]) -> str | None:
    """Return the agent session that the headers of a request state."""
    return attribute_request(context.stated, (), context.project.attribution).agent_session


async def enforce_stops(snapshots: SnapshotHolder, capacity: Capacity) -> None:
    """End the requests that a stop covers, until cancelled."""
    while True:
        await asyncio.sleep(_INTERVAL_S)
        stops = snapshots.current.state.stops
        if stops:
            capacity.stop(stops)
