"""Decides which pending requests are polled when.  Pure: it knows no clock and starts nothing.

    add ──> due heap of its provider ──┐
    request_now ──> requested queue ───┴──> take: a slot of its provider is free ──> running
                        ▲                                                              │
                        └──────────── due again, after a longer wait <── finish ───────┘

Each request has a due time of its own, and each provider its own slots.  A provider that does not respond therefore
delays no other one, and requests that never end do not keep the slots from later ones: those are due earlier.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tornado_proxy.domain.record import PendingRequest

#: Seconds from the response to the first poll, and the shortest wait between two polls.
MIN_WAIT_S = 1.0

#: Factor between one wait and the next, up to the longest wait that finish() is given.
BACKOFF_FACTOR = 1.5

#: Polls of one provider that run at the same time, and as many more for objects that clients have just fetched.
MAX_RUNNING_PER_PROVIDER = 8


class PollState(StrEnum):
    """The reason why a request is still pending; the values are labels of a metric."""

    #: The work has not ended, or has not been polled yet.
    WAITING = "waiting"
    #: The provider does not find the object, or its results are incomplete; it may later.
    MISSING = "missing"
    #: The provider key that made the request is not configured.
    NO_KEY = "no_key"
    #: The usage has been missing for hours; reports show the request as unsettled.
    GIVEN_UP = "given_up"


@dataclass(slots=True)
class Cancellation:
    """The attempts to cancel the work of a pending request because of a stop.

    Attributes:
        stop_id: The id of the stop.
        since: The loop time of the first attempt.
        accepted: True if the provider has accepted one.
        ended: True if there is no further attempt.
        failure: The reason that the last attempt failed, None if none has.
    """

    stop_id: str
    since: float
    accepted: bool = False
    ended: bool = False
    failure: str | None = None


@dataclass(slots=True, eq=False)
class Poll:
    """A pending request, and when it is polled.  All times are loop time.

    Attributes:
        request: The pending request.
        due_at: The time of the next poll.
        wait_s: The wait from the next poll to the one after it.
        scan: The number of the last scan of the ledger that found the request.
        missing_since: The time since which the usage is missing although the work has ended, None if it is not.
        output_bytes: The length of the output text that has passed by, for an estimate.
        running: True while the request is polled.
        requested: True if the poll that runs was requested by a client, or because of a stop.
        cancellation: The attempts to cancel the work because of a stop; None if no stop covers the request.
    """

    request: PendingRequest
    due_at: float
    scan: int
    wait_s: float = MIN_WAIT_S
    state: PollState = PollState.WAITING
    missing_since: float | None = None
    output_bytes: int = 0
    running: bool = False
    requested: bool = False
    cancellation: Cancellation | None = None


class PollSchedule:
    """The pending requests that this process knows."""

    def __init__(self) -> None:
        self._polls: dict[str, Poll] = {}
        self._by_object: dict[str, Poll] = {}
        #: Provider to a heap of (due time, tie-breaker, poll).  A poll that was removed or moved stays until its turn.
        self._due: dict[str, list[tuple[float, int, Poll]]] = {}
        self._requested: dict[str, dict[Poll, None]] = {}
        self._running: Counter[tuple[str, bool]] = Counter()
        self._order = itertools.count()
        self.counts: Counter[str] = Counter(dict.fromkeys(PollState, 0))

    def add(self, request: PendingRequest, now: float, scan: int) -> None:
        """Schedule a request for now; a request that is known keeps its time."""
        known = self._polls.get(request.request_id)
        if known is not None:
            known.scan = scan
            return
        poll = self._polls[request.request_id] = Poll(request, now, scan)
        self._by_object[request.object_id] = poll
        self.counts[poll.state] += 1
        self._push(poll)

    def find(self, provider: str, object_id: str) -> Poll | None:
        """Return the poll of an object, None if its usage is known or the object is not."""
        poll = self._by_object.get(object_id)
        return poll if poll is not None and poll.request.provider == provider else None

    def request_now(self, object_id: str) -> bool:
        """Poll an object before those that are only due; return False if it is not known."""
        poll = self._by_object.get(object_id)
        if poll is not None:
            self._requested.setdefault(poll.request.provider, {})[poll] = None
        return poll is not None

    def list_requests(self) -> list[PendingRequest]:
        """Return the requests that are polled."""
        return [poll.request for poll in self._polls.values()]

    def restart(self, request_id: str) -> None:
        """Poll a request at once, and then again after short waits; no effect on one that is settled."""
        poll = self._polls.get(request_id)
        if poll is not None:
            poll.wait_s = MIN_WAIT_S
            self._requested.setdefault(poll.request.provider, {})[poll] = None

    def take(self, now: float) -> Iterator[Poll]:
        """Yield the polls to start now: first those that clients requested, then by due time."""
        for provider, requested in self._requested.items():
            free = max(0, MAX_RUNNING_PER_PROVIDER - self._running[provider, True])
            # Lazily: a stop can request thousands, and this is called after each poll.
            for poll in tuple(itertools.islice((poll for poll in requested if not poll.running), free)):
                del requested[poll]
                yield self._start(poll, requested=True)
        for provider, due in self._due.items():
            while due and due[0][0] <= now and self._running[provider, False] < MAX_RUNNING_PER_PROVIDER:
                due_at, _, poll = heapq.heappop(due)
                # An entry whose poll runs or has another due time by now is left over from before a client's request.
                if not poll.running and due_at == poll.due_at and self._is_known(poll):
                    yield self._start(poll, requested=False)

    def finish(self, poll: Poll, started_at: float, now: float, max_wait_s: float) -> None:
        """Free the slot of a poll that ended, and schedule the next one."""
        poll.running = False
        self._running[poll.request.provider, poll.requested] -= 1
        if not self._is_known(poll):
            return
        # A poll that took long has its wait after it, so that it is due later than those that wait behind it.
        poll.due_at = max(started_at + poll.wait_s, now + MIN_WAIT_S)
        poll.wait_s = min(poll.wait_s * BACKOFF_FACTOR, max_wait_s)
        self._push(poll)

    def set_state(self, poll: Poll, state: PollState) -> None:
        """Note why a request is still pending."""
        if self._is_known(poll):
            self.counts[poll.state] -= 1
            self.counts[state] += 1
        poll.state = state

    def remove(self, poll: Poll) -> None:
        """Forget a request: it is settled."""
        if not self._is_known(poll):
            return
        del self._polls[poll.request.request_id]
        if self._by_object.get(poll.request.object_id) is poll:
            del self._by_object[poll.request.object_id]
        self._requested.get(poll.request.provider, {}).pop(poll, None)
        self.counts[poll.state] -= 1

    def remove_older(self, scan: int) -> None:
        """Forget the requests that no scan since `scan` has found: another process has settled them."""
        for poll in [poll for poll in self._polls.values() if poll.scan < scan and not poll.running]:
            self.remove(poll)

    def _is_known(self, poll: Poll) -> bool:
        return self._polls.get(poll.request.request_id) is poll

    def _push(self, poll: Poll) -> None:
        heap = self._due.setdefault(poll.request.provider, [])
        heapq.heappush(heap, (poll.due_at, next(self._order), poll))

    def _start(self, poll: Poll, *, requested: bool) -> Poll:
        poll.running, poll.requested = True, requested
        self._running[poll.request.provider, requested] += 1
        return poll
