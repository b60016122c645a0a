"""Settles usage that is reported after the response: polls background responses and batches until their usage is there.

    ledger ──┐                                  ┌── unfinished ──> poll later, backing off
    records ─┴──> PollSchedule ──> DeferredFetch ┼── ended ──> price ──> ledger.settle, once
                        ▲                        └── missing ──> poll later; given up after hours, and settled if the
    responses to ───────┘                                       usage arrives after all
    clients, by id

    a stop (stopped_work.py) ──> a poll cancels work that has not ended

The proxy polls on its own, since a client may never fetch a result.  Usage in a response that passes to a client by the
object's id is used too, and an object is settled before a client's request deletes it.  Pending requests are in the
ledger, so a restart forgets none; of two settlements of a request the first holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from tornado_proxy import tasks
from tornado_proxy.domain.cost import Discount, merge_items
from tornado_proxy.domain.errors import KeyNotConfigured, LedgerUnavailable, ServiceError, UpstreamError, UsagePending
from tornado_proxy.domain.record import PendingRequest, RequestRecord, Settlement
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.metering.container_time import RequestSpan, make_container_time
from tornado_proxy.metering.deferred_fetch import DeferredFetch, Ended, Fetched, Missing, Unfinished, make_facts
from tornado_proxy.metering.passing_usage import PassingUsage
from tornado_proxy.metering.poll_schedule import Poll, PollSchedule, PollState
from tornado_proxy.metering.report_checks import limit_names, note_unknown_counts
from tornado_proxy.metering.stopped_work import StoppedWork
from tornado_proxy.observability import metrics
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import DeferredUsage
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.upstream.credentials import deferred_access
from tornado_proxy.upstream.http.protocols import Upstream

_log = logging.getLogger(__name__)

#: Seconds between two reads of the pending requests.
POLL_INTERVAL_S = 1.0

#: Pending requests read at a time, oldest first, and reads per round: a restart finds 10,000 in a second.
MAX_PER_READ, MAX_READS_PER_ROUND = 500, 20

#: Seconds between two scans of all pending requests, which find those that another process has settled.
SCAN_INTERVAL_S = 60.0

#: Seconds for which usage that should be there is requested again.  Providers respond with 404 for a fresh object: for
#: a second as a rule (anthropic-sdk-python, issue 1432), for longer during incidents.
GIVE_UP_AFTER_S = 6 * 3600.0

#: The longest wait, in seconds, while usage is missing or its key is; and after the request was given up.
MAX_MISSING_WAIT_S, GIVEN_UP_WAIT_S = 600.0, 24 * 3600.0

#: Seconds for which a DELETE waits until the settlement is durable.  A ledger that works takes some milliseconds.
MAX_SETTLE_S = 10.0

#: The bases of usage in a passing response that settle a request.  Anything less certain is left to the next poll.
_SETTLING = frozenset({Basis.REPORTED, Basis.INFERRED})


class SettlementLedger(Protocol):
    """The ledger, as far as settlement needs it."""

    async def pending_requests(self, limit: int, after: int = 0) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage is not reported yet, oldest first, with seq > `after`."""

    async def pending_request(self, provider: str, object_id: str) -> PendingRequest | None:
        """Return the request that created an object if its usage is not known yet, else None."""

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store a settlement; the future is done when it is durable."""


class DeferredSettlement:
    """Settles pending requests: run() until cancelled."""

    def __init__(self, snapshots: SnapshotHolder, upstream: Upstream, ledger: SettlementLedger) -> None:
        self._snapshots = snapshots
        self._upstream = upstream
        self._ledger = ledger
        self._schedule = PollSchedule()
        #: Objects that clients have fetched and that no scan has found yet.
        self._requested: set[str] = set()
        self._stopped_work = StoppedWork(snapshots)
        #: (provider, object id) of background work whose creating request has not ended.
        self._streaming: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        self._polls: set[asyncio.Task[None]] = set()
        self._scan, self._cursor, self._next_scan_at = 1, 0, 0.0

    # Called by the gateway.

    def record_ended(self, record: RequestRecord) -> None:
        """Poll the request of a record if its usage is pending; the ledger may not have written it yet."""
        request = PendingRequest.of(record)
        if request is not None:
            self._schedule.add(request, asyncio.get_running_loop().time(), self._scan)

    def work_streams(self, provider: str, object_id: str, *, streaming: bool) -> None:
        """Note that the response of a background request still streams, or has ended: it has no record before."""
        (self._streaming.add if streaming else self._streaming.discard)((provider, object_id))

    def poll_now(self, object_id: str) -> None:
        """Poll an object at once: a client has just fetched it, so it may have finished."""
        if not self._schedule.request_now(object_id):
            self._requested.add(object_id)
        self._wake.set()

    def watch(self, provider: str, object_id: str, deferred: DeferredUsage, project_id: str) -> PassingUsage | None:
        """Return the reader of a response that passes to a client of a project.

        Return None if the object's usage is known, or another project's: the host of an account of the client's own
        project can state any id.
        """
        poll = self._schedule.find(provider, object_id)
        if poll is None or poll.request.project_id != project_id:
            return None
        facts = make_facts(poll.request, poll.output_bytes)
        on_report = functools.partial(self._on_passing, poll)
        return PassingUsage(deferred, facts, on_report, poll.request.request_id)

    async def settle_before_delete(
        self, provider: str, object_id: str, deferred: DeferredUsage, project_id: str
    ) -> None:
        """Settle the request that created an object, which a caller of the project is going to delete.

        Running work that can be cancelled is cancelled.  A request of another project is left alone: then the caller's
        project has an account of its own, and the object that it deletes there is not the one of the request.

        Raises:
            UsagePending: the work has not ended, or its usage cannot be fetched now.
            LedgerUnavailable: the ledger cannot be read.
        """
        poll = self._schedule.find(provider, object_id)
        request = poll.request if poll is not None else await self._ledger.pending_request(provider, object_id)
        if request is None:
            if (provider, object_id) in self._streaming:
                raise UsagePending(f"{object_id[:100]} still streams; delete it when its stream has ended")
            return
        if request.project_id != project_id:
            return
        snapshot = self._snapshots.current
        try:
            fetch = self._make_fetch(snapshot, request, deferred, poll)
            fetched = await fetch.fetch()
            if isinstance(fetched, Unfinished) and deferred.cancels_deleted:
                fetched = (await fetch.cancel()).fetched
        except (UpstreamError, ServiceError) as error:
            raise UsagePending(
                f"the usage of {object_id[:100]} cannot be fetched ({error.message}); try again"
            ) from None
        if isinstance(fetched, Ended):
            settling = tasks.spawn(self._settle(snapshot, request, fetched.report), "settle pending request")
            done, _ = await asyncio.wait([settling], timeout=MAX_SETTLE_S)
            if not done:
                raise UsagePending(f"the usage of {object_id[:100]} cannot be stored now; try again")
        elif not isinstance(fetched, Missing):
            raise UsagePending(f"{object_id[:100]} has not ended; cancel it, and delete it when it has ended")
        elif fetched.report.items and fetched.report.basis is Basis.UNSETTLED:
            raise UsagePending(f"the results of {object_id[:100]} are not complete yet; try again")

    # The background task.

    async def run(self) -> None:
        """Poll pending requests until cancelled."""
        try:
            while True:
                with contextlib.suppress(LedgerUnavailable):
                    await self._read_pending()
                await self._stopped_work.restart(self._schedule)
                self._start_polls()
                metrics.set_pending(self._schedule.counts)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_INTERVAL_S)
                self._wake.clear()
        finally:
            for task in self._polls:
                task.cancel()

    async def _read_pending(self) -> None:
        """Add the requests that the ledger has got since the last read; now and then, read all of them again."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_scan_at:
            self._scan, self._cursor, self._next_scan_at = self._scan + 1, 0, now + SCAN_INTERVAL_S
        for _ in range(MAX_READS_PER_ROUND):
            requests = await self._ledger.pending_requests(MAX_PER_READ, self._cursor)
            for request in requests:
                self._schedule.add(request, now, self._scan)
            self._cursor = requests[-1].seq if requests else self._cursor
            if len(requests) < MAX_PER_READ:
                # Only at the end of a scan: the pages that are not read yet hold pending requests too.
                self._schedule.remove_older(self._scan)
                break
        requested, self._requested = self._requested, set()
        for object_id in requested:
            self._schedule.request_now(object_id)

    def _start_polls(self) -> None:
        for poll in self._schedule.take(asyncio.get_running_loop().time()):
            task = tasks.spawn(self._poll(poll), "poll pending request")
            self._polls.add(task)
            task.add_done_callback(self._polls.discard)

    async def _poll(self, poll: Poll) -> None:
        loop = asyncio.get_running_loop()
        started_at, max_wait_s = loop.time(), MAX_MISSING_WAIT_S
        snapshot = self._snapshots.current
        deferred = _find_deferred(snapshot, poll.request)
        try:
            if deferred is not None:
                max_wait_s = deferred.max_interval_s
                fetch = self._make_fetch(snapshot, poll.request, deferred, poll)
                fetched = await self._stopped_work.cancel(poll, fetch, await fetch.fetch())
                max_wait_s = await self._apply(snapshot, poll, fetched, max_wait_s)
        except KeyNotConfigured as error:
            max_wait_s = MAX_MISSING_WAIT_S
            self._schedule.set_state(poll, PollState.NO_KEY)
            self._note_failure(poll, error.message)
        except (UpstreamError, ServiceError) as error:
            self._note_failure(poll, error.message)
        except Exception:  # noqa: BLE001  # a bug in one reader or price must not stop the settlement of all others
            metrics.TASK_FAILURES.labels("settlement").inc()
            _log.exception("pending request could not be settled", extra={"request_id": poll.request.request_id})
        finally:
            max_wait_s = self._stopped_work.limit_wait(poll, max_wait_s)
            self._schedule.finish(poll, started_at, loop.time(), max_wait_s)
        self._start_polls()

    def _note_failure(self, poll: Poll, reason: str) -> None:
        _warn(poll.request, reason)
        self._stopped_work.note_failure(poll, reason)

    async def _apply(self, snapshot: Snapshot, poll: Poll, fetched: Fetched, max_wait_s: float) -> float:
        """Settle or keep a request after a poll; return the longest wait until the next one."""
        if isinstance(fetched, Ended):
            await self._settle(snapshot, poll.request, fetched.report)
            return max_wait_s
        if not isinstance(fetched, Missing):
            poll.missing_since = None
            self._schedule.set_state(poll, PollState.WAITING)
            return max_wait_s
        return await self._on_missing(snapshot, poll, fetched.report)

    async def _on_missing(self, snapshot: Snapshot, poll: Poll, report: UsageReport) -> float:
        """Keep a request whose usage is missing; after GIVE_UP_AFTER_S show its known part."""
        now = asyncio.get_running_loop().time()
        if poll.missing_since is None:
            poll.missing_since = now
        if poll.state is PollState.GIVEN_UP:
            return GIVEN_UP_WAIT_S
        if now - poll.missing_since < GIVE_UP_AFTER_S:
            self._schedule.set_state(poll, PollState.MISSING)
            return MAX_MISSING_WAIT_S
        # An estimate is final: the object is gone, and no later response can state its usage.
        if report.basis is Basis.ESTIMATED:
            await self._settle(snapshot, poll.request, report)
            return MAX_MISSING_WAIT_S
        self._schedule.set_state(poll, PollState.GIVEN_UP)
        poll.wait_s = GIVEN_UP_WAIT_S
        settlement = replace(_make_settlement(snapshot, poll.request, report), final=False)
        await self._ledger.settle(snapshot.redaction.values(settlement))
        reason = "; ".join(report.faults)
        _log.error("pending request given up", extra={"request_id": poll.request.request_id, "reason": reason})
        return GIVEN_UP_WAIT_S

    async def _settle(self, snapshot: Snapshot, request: PendingRequest, report: UsageReport) -> None:
        settlement = snapshot.redaction.values(_make_settlement(snapshot, request, report))
        await self._ledger.settle(settlement)
        poll = self._schedule.find(request.provider, request.object_id)
        if poll is not None and poll.request.request_id == request.request_id:
            self._schedule.remove(poll)
        _log.info(
            "request settled",
            extra={
                "request_id": settlement.request_id,
                "basis": settlement.basis.value,
                "total_usd": f"{settlement.cost.total:f}",
            },
        )

    def _on_passing(self, poll: Poll, report: UsageReport) -> None:
        """Use the usage of a pending request that a response to a client has stated."""
        poll.output_bytes = max(poll.output_bytes, report.output_bytes)
        if report.basis in _SETTLING and report.raw is not None:
            tasks.spawn(self._settle(self._snapshots.current, poll.request, report), "settle pending request")

    def _make_fetch(
        self, snapshot: Snapshot, request: PendingRequest, deferred: DeferredUsage, poll: Poll | None
    ) -> DeferredFetch:
        provider = snapshot.routes.get_provider(request.provider)
        access = deferred_access(snapshot, provider, request.project_id, request.deferred_facts.made_with)
        return DeferredFetch(self._upstream, access, deferred, request, 0 if poll is None else poll.output_bytes)


def _find_deferred(snapshot: Snapshot, request: PendingRequest) -> DeferredUsage | None:
    endpoint = snapshot.routes.find_http_endpoint(request.provider, "POST", request.endpoint)
    return None if endpoint is None else endpoint.deferred_usage


def _warn(request: PendingRequest, reason: str) -> None:
    _log.warning(
        "pending request could not be polled",
        extra={"request_id": request.request_id, "project_id": request.project_id, "reason": reason},
    )


def _make_settlement(snapshot: Snapshot, request: PendingRequest, report: UsageReport) -> Settlement:
    key = request.deferred_facts.made_with
    tariff = _find_tariff(snapshot, request)
    charge = tariff.charge(limit_names(report), request.model_requested, request.started_at)
    report, cost = charge.report, merge_items(charge.cost)
    settled_at = datetime.now(UTC)
    account = "" if key is None else key.fingerprint
    return Settlement(
        request_id=request.request_id,
        model=report.model or request.model_requested,
        basis=Basis.UNSETTLED if cost.faults else report.basis,
        cost=cost,
        settled_at=settled_at,
        usage=report.raw,
        faults=(*report.faults, *cost.faults, *cost.notes, *note_unknown_counts(request.provider, report.raw)),
        estimate_method=report.estimate_method,
        container_time=make_container_time(
            charge.containers,
            tariff,
            RequestSpan(request.provider, request.project_id, request.started_at, settled_at, account),
        )
        if charge.containers
        else None,
    )


def _find_tariff(snapshot: Snapshot, request: PendingRequest) -> Tariff:
    """Return the present prices with the surcharge, discount and region that the request began with."""
    facts = request.deferred_facts
    own = facts.made_with is not None and facts.made_with.own
    tariff = snapshot.find_tariff(request.provider, request.project_id, own=own)
    if facts.rates is None:  # a record of an earlier version
        return snapshot.add_discount(tariff, request.project_id, facts.made_with)
    return replace(
        tariff,
        surcharge_rate=facts.rates.surcharge,
        discount=Discount(facts.rates.discount),
        provider_region=facts.provider_region,
    )
