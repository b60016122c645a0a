"""Cancels background responses and message batches of stopped callers at their providers.

    a new stop ──> restart: the requests that it covers are polled at once
    a poll ──> unfinished, and a stop covers the request ──> POST to the path that cancels the work
                  accepted ──> polled until it ends, and settled with the usage that the provider then states
                  refused, or no response ──> again at the next poll, for MAX_CANCEL_S

Each process of the ledger polls, and cancels work that no other one has cancelled before; a second cancellation at the
same moment changes nothing.  A lifted stop ends the attempts.
"""

from __future__ import annotations

import asyncio
import logging

from tornado_proxy.domain.record import PendingRequest
from tornado_proxy.domain.stop import Stop
from tornado_proxy.metering.deferred_fetch import DeferredFetch, Fetched, Unfinished
from tornado_proxy.metering.poll_schedule import Cancellation, Poll, PollSchedule
from tornado_proxy.observability import metrics
from tornado_proxy.snapshot import SnapshotHolder

_log = logging.getLogger(__name__)

#: Seconds for which a cancellation that fails is tried again.  No message batch runs for longer than 24 hours
#: (Anthropic guide, "Batch processing"), and background responses end earlier.
MAX_CANCEL_S = 24 * 3600.0

#: The longest wait between two polls of work that is to end, in seconds.
MAX_WAIT_S = 60.0

#: Stops that are compared with requests until other work of the event loop has its turn.  One comparison takes 0.4 us.
MAX_CHECKS_PER_TURN = 2_500


class StoppedWork:
    """Cancels the work of the pending requests that a stop covers."""

    def __init__(self, snapshots: SnapshotHolder) -> None:
        self._snapshots = snapshots
        self._stops: tuple[Stop, ...] = ()

    async def restart(self, schedule: PollSchedule) -> None:
        """Poll the requests that stops cover which were made since the last call, at once."""
        before, self._stops = self._stops, self._snapshots.current.state.stops
        if self._stops is before:
            return
        made = frozenset(self._stops).difference(before)
        if not made:
            return
        requests = schedule.list_requests()
        size = max(1, MAX_CHECKS_PER_TURN // len(made))
        for start in range(0, len(requests), size):
            for request in requests[start : start + size]:
                if any(_covers(stop, request) for stop in made):
                    schedule.restart(request.request_id)
            await asyncio.sleep(0)

    async def cancel(self, poll: Poll, fetch: DeferredFetch, fetched: Fetched) -> Fetched:
        """Cancel the work of a request if it runs and a stop covers it; return the state afterwards.

        Raises:
            UpstreamError: the provider did not respond.
        """
        attempts = self._find_attempts(poll)
        if attempts is None or attempts.ended or not isinstance(fetched, Unfinished):
            return fetched
        if fetched.cancelling:  # by another process, or by its owner
            attempts.ended = True
            return fetched
        if _is_over(attempts):
            self._give_up(poll, attempts, attempts.failure or "the provider has accepted its cancellation")
            return fetched
        cancelled = await fetch.cancel()
        if cancelled.refusal is None:
            self._note_accepted(poll, attempts)
        elif isinstance(cancelled.fetched, Unfinished):
            self.note_failure(poll, cancelled.refusal)
        return cancelled.fetched

    def note_failure(self, poll: Poll, reason: str) -> None:
        """Note that a poll failed: if a stop covers its request, the work was not cancelled."""
        attempts = self._find_attempts(poll)
        if attempts is None or attempts.ended:
            return
        if _is_over(attempts):
            self._give_up(poll, attempts, reason)
            return
        metrics.STOP_CANCELLATIONS.labels("failed").inc()
        if attempts.failure is None:  # once: a reason can contain a time, and so change with each attempt
            _log.warning(
                "pending request could not be cancelled",
                extra={**_describe(poll.request, attempts), "reason": reason},
            )
        attempts.failure = reason

    def _give_up(self, poll: Poll, attempts: Cancellation, reason: str) -> None:
        attempts.ended = True
        metrics.STOP_CANCELLATIONS.labels("given_up").inc()
        _log.error(
            "pending request not cancelled; it runs on and is charged",
            extra={**_describe(poll.request, attempts), "reason": reason},
        )

    def limit_wait(self, poll: Poll, max_wait_s: float) -> float:
        """Return the longest wait until the next poll of a request, at most `max_wait_s`."""
        attempts = poll.cancellation
        return max_wait_s if attempts is None or attempts.ended or _is_over(attempts) else min(max_wait_s, MAX_WAIT_S)

    def _find_attempts(self, poll: Poll) -> Cancellation | None:
        """Return the attempts to cancel the work of a request, None if no stop covers it (now)."""
        stop = next((stop for stop in self._snapshots.current.state.stops if _covers(stop, poll.request)), None)
        if stop is None:
            poll.cancellation = None
        elif poll.cancellation is None or poll.cancellation.stop_id != stop.id:
            poll.cancellation = Cancellation(stop.id, asyncio.get_running_loop().time())
        return poll.cancellation

    def _note_accepted(self, poll: Poll, attempts: Cancellation) -> None:
        if attempts.accepted:
            return
        attempts.accepted = True
        metrics.STOP_CANCELLATIONS.labels("cancelled").inc()
        _log.info("pending request cancelled because of a stop", extra={**_describe(poll.request, attempts)})


def _is_over(attempts: Cancellation) -> bool:
    return asyncio.get_running_loop().time() - attempts.since >= MAX_CANCEL_S


def _covers(stop: Stop, request: PendingRequest) -> bool:
    return stop.target.covers(request, request.agent_session)


def _describe(request: PendingRequest, attempts: Cancellation) -> dict[str, object]:
    return {
        "request_id": request.request_id,
        "project_id": request.project_id,
        "provider": request.provider,
        "object_id": request.object_id,
        "stop": attempts.stop_id,
    }
