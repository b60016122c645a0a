"""The state of the dashboard: the last update, and the last requests and errors.  Bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from tornado_proxy.local.dashboard.messages import (
    MAX_ERRORS,
    MAX_RECENT,
    MINUTES,
    Finished,
    Introduction,
    ModelSums,
    Refused,
    Running,
    Sums,
    Update,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A request that failed, one that the local proxy refused, or, with status 0, a warning of its log.

    `status` is None if the client saw none.  `title` is the request's model, or the code of the refusal.
    """

    at: datetime
    status: int | None
    method: str
    path: str
    title: str
    message: str


@dataclass(slots=True)
class DashboardState:
    """Everything that the dashboard shows; `recent` and `problems` have the newest first."""

    introduction: Introduction | None = None
    sums: Sums = field(default_factory=Sums)
    refused_count: int = 0
    error_count: int = 0
    running_count: int = 0
    minutes: tuple[Decimal, ...] = (Decimal(0),) * MINUTES
    running: tuple[Running, ...] = ()
    recent: deque[Finished] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))
    problems: deque[Problem] = field(default_factory=lambda: deque(maxlen=MAX_ERRORS))
    _models: dict[tuple[str, str], ModelSums] = field(default_factory=dict)

    def apply(self, update: Update) -> None:
        """Take over an update."""
        self.sums, self.minutes = update.sums, update.minutes
        self.refused_count, self.error_count = update.refused_count, update.error_count
        self.running, self.running_count = update.running, update.running_count
        self.recent.extendleft(update.finished)
        problems = [_describe_failure(finished) for finished in update.finished if finished.is_error]
        problems += [_describe_refusal(refused) for refused in update.refused]
        self.problems.extendleft(sorted(problems, key=lambda problem: problem.at))
        self._models.update({(sums.provider, sums.model): sums for sums in update.models})

    @property
    def live_sums(self) -> tuple[Sums, bool]:
        """The sums with the estimates of requests in flight, and True if there are any."""
        estimated = [request for request in self.running if request.tokens or request.total]
        sums = self.sums
        for request in estimated:
            sums = msgspec.structs.replace(
                sums,
                tokens=sums.tokens + (request.tokens or 0),
                subtotal=sums.subtotal + (request.subtotal or 0),
                surcharge=sums.surcharge + (request.surcharge or 0),
                total=sums.total + (request.total or 0),
            )
        return sums, bool(estimated)

    @property
    def models(self) -> list[ModelSums]:
        """The usage by model, the dearest first."""
        return sorted(self._models.values(), key=lambda entry: (-entry.sums.total, -entry.sums.requests))

    def find_recent(self, filtered_by: str) -> Iterator[Finished]:
        """Yield the recent requests in which every word of `filtered_by` occurs."""
        words = filtered_by.lower().split()
        for finished in self.recent:
            if not words or all(word in _searched_text(finished) for word in words):
                yield finished

    def find_request(self, number: int) -> Finished | None:
        """Return a recent request by its number."""
        return next((finished for finished in self.recent if finished.number == number), None)


def _searched_text(finished: Finished) -> str:
    parts = (
        finished.request_id,
        finished.provider,
        finished.model,
        finished.method,
        finished.path,
        str(finished.status),
        finished.outcome,
        finished.basis,
        finished.message,
    )
    return "\n".join(parts).lower()


def _describe_failure(finished: Finished) -> Problem:
    message = finished.message or (finished.notes[0] if finished.notes else finished.outcome)
    return Problem(
        finished.ended_at, finished.status, finished.method, finished.path, finished.model or finished.provider, message
    )


def _describe_refusal(refused: Refused) -> Problem:
    return Problem(refused.at, refused.status, refused.method, refused.path, refused.code, refused.message)
