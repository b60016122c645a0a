"""The requests in flight, with their cost so far.

An estimate takes a copy of a usage reader, which costs time of the relay: each turn has a limit, and a request whose
estimate is slow is looked at less often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC

from tornado_proxy.domain.cost import ZERO, Cost
from tornado_proxy.gateway.recorder import RunningRequest
from tornado_proxy.local.dashboard.messages import MAX_NAME_CHARACTERS, MAX_RUNNING, Running
from tornado_proxy.local.request_lines import count_item_tokens

#: Seconds of one turn in which estimates may begin.
MAX_TURN_S = 0.002

#: An estimate that took t is made again after t times this: it takes at most 1 % of the time.
_PAUSE_FACTOR = 100


@dataclass(slots=True)
class _Followed:
    request: RunningRequest
    began_at: float
    costs: tuple[Cost, ...] = ()
    due_at: float = 0.0


class RunningRequests:
    """The requests that run, in the order in which they began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._followed: dict[str, _Followed] = {}

    def __len__(self) -> int:
        return len(self._followed)

    def follow(self, request: RunningRequest) -> None:
        """Called when a request begins."""
        self._followed[request.request_id] = _Followed(request, self._clock())

    def unfollow(self, request_id: str) -> None:
        """Called when a request has ended."""
        self._followed.pop(request_id, None)

    def drop_estimate(self, session_id: str) -> None:
        """Called when work of a session has its record: its estimate must not be counted beside it."""
        followed = self._followed.get(session_id)
        if followed is not None:
            followed.costs, followed.due_at = (), 0.0

    def describe(self) -> tuple[Running, ...]:
        """Return the oldest MAX_RUNNING requests, with estimates as new as the limits allow."""
        shown = list(self._followed.values())[:MAX_RUNNING]
        self._estimate(shown)
        now = self._clock()
        return tuple(_describe(followed, now) for followed in shown)

    def _estimate(self, shown: list[_Followed]) -> None:
        began_at = now = self._clock()
        for followed in sorted(shown, key=lambda entry: entry.due_at):
            if followed.due_at > now or now - began_at > MAX_TURN_S:
                return
            followed.costs = followed.request.meter.estimate()
            ended_at = self._clock()
            followed.due_at = ended_at + _PAUSE_FACTOR * (ended_at - now)
            now = ended_at


def _describe(followed: _Followed, now: float) -> Running:
    request, costs = followed.request, followed.costs
    is_priced = bool(costs) and not any(cost.faults for cost in costs)
    return Running(
        request_id=request.request_id,
        provider=request.provider,
        method=request.method,
        path=request.endpoint,
        model=(request.model or "")[:MAX_NAME_CHARACTERS],
        started_at=request.started_at.astimezone(UTC),
        age_ms=round((now - followed.began_at) * 1000),
        tokens=sum(count_item_tokens(cost.line_items) for cost in costs) if costs else None,
        subtotal=sum((cost.subtotal for cost in costs), ZERO) if is_priced else None,
        surcharge=sum((cost.surcharge for cost in costs), ZERO) if is_priced else None,
        total=sum((cost.total for cost in costs), ZERO) if is_priced else None,
    )
