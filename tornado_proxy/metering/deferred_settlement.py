"""Settles usage that is reported after the response: polls background responses and batches until their usage is there.

    ledger.pending_requests ──> due? ──> state ── unfinished ──> poll later, backing off
                                           │ finished
                                           └──> results ──> reader ──> price ──> ledger.settle, once

The proxy polls on its own, since a client may never fetch a result; when one does, the next poll is at once.
Pending requests are in the ledger, so a restart forgets none; of two settlements of a request the first holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tornado_proxy.domain.cost import merge_items
from tornado_proxy.domain.errors import LedgerUnavailable, ServiceError, UpstreamError
from tornado_proxy.domain.record import PendingRequest, Settlement
from tornado_proxy.domain.units import MIB
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.observability import metrics
from tornado_proxy.providers.contract import DeferredUsage, ResponseHead, UsageReader
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.upstream.credentials import project_access
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import Exchange

_log = logging.getLogger(__name__)

#: Seconds between two reads of the pending requests, and from the response to the first poll.
POLL_INTERVAL_S = 1.0

#: Factor between one wait and the next, up to the endpoint's own max_interval_s.
BACKOFF_FACTOR = 1.5

#: Pending requests read per round, oldest first.
MAX_PER_ROUND = 500

#: Bytes of a state; one of a response with a long text has some 100 KB.
MAX_STATE_BYTES = 64 * MIB

#: Statuses that say that the provider no longer has the object (RFC 9110 sections 15.5.5 and 15.5.11).
_GONE = frozenset({404, 410})


class SettlementLedger(Protocol):
    """The ledger, as far as settlement needs it."""

    async def pending_requests(self, limit: int) -> list[PendingRequest]:
        """Return up to `limit` requests whose usage is not reported yet, oldest first."""

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Store a settlement; the future is done when it is durable."""


@dataclass(slots=True)
class _Schedule:
    """When a request is polled next, in loop time, and the wait before that poll."""

    due_at: float
    wait_s: float


class DeferredSettlement:
    """Settles pending requests: run() until cancelled."""

    def __init__(self, snapshots: SnapshotHolder, upstream: UpstreamClient, ledger: SettlementLedger) -> None:
        self._snapshots = snapshots
        self._upstream = upstream
        self._ledger = ledger
        self._schedules: dict[str, _Schedule] = {}
        self._requested: set[str] = set()
        self._wake = asyncio.Event()

    def poll_now(self, object_id: str) -> None:
        """Poll an object at once: a client has just fetched it, so it may have finished."""
        self._requested.add(object_id)
        self._wake.set()

    async def run(self) -> None:
        """Poll pending requests until cancelled."""
        while True:
            with contextlib.suppress(LedgerUnavailable):
                await self._poll_due()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_INTERVAL_S)
            self._wake.clear()

    async def _poll_due(self) -> None:
        now = asyncio.get_running_loop().time()
        requests = await self._ledger.pending_requests(MAX_PER_ROUND)
        self._schedules = {
            request.request_id: self._schedules.get(request.request_id, _Schedule(now, POLL_INTERVAL_S))
            for request in requests
        }
        requested, self._requested = self._requested, set()
        for request in requests:
            if request.object_id in requested or now >= self._schedules[request.request_id].due_at:
                await self._poll_safely(request)

    async def _poll_safely(self, request: PendingRequest) -> None:
        """Poll a request; log and count an unexpected failure, so that the other requests are settled."""
        try:
            await self._poll(request)
        except Exception:  # noqa: BLE001  # a bug in one reader or price must not stop the settlement of all others
            metrics.TASK_FAILURES.labels("settlement").inc()
            _log.exception("pending request could not be settled", extra={"request_id": request.request_id})

    async def _poll(self, request: PendingRequest) -> None:
        snapshot = self._snapshots.current
        endpoint = snapshot.routes.find_http_endpoint(request.provider, "POST", request.endpoint)
        if endpoint is None or endpoint.deferred_usage is None:
            return
        self._back_off(request, endpoint.deferred_usage)
        try:
            report = await self._fetch_usage(snapshot, request, endpoint.deferred_usage)
        except (UpstreamError, ServiceError) as error:
            _log.warning("pending request could not be polled", extra={"reason": error.message})
            return
        if report is not None:
            await self._settle(snapshot.redaction.values(_settlement(snapshot, request, report)))

    async def _settle(self, settlement: Settlement) -> None:
        await self._ledger.settle(settlement)
        _log.info(
            "request settled",
            extra={
                "request_id": settlement.request_id,
                "basis": settlement.basis.value,
                "total_usd": f"{settlement.cost.total:f}",
            },
        )

    def _back_off(self, request: PendingRequest, deferred: DeferredUsage) -> None:
        schedule = self._schedules[request.request_id]
        schedule.due_at = asyncio.get_running_loop().time() + schedule.wait_s
        schedule.wait_s = min(schedule.wait_s * BACKOFF_FACTOR, deferred.max_interval_s)

    async def _fetch_usage(
        self, snapshot: Snapshot, request: PendingRequest, deferred: DeferredUsage
    ) -> UsageReport | None:
        """Return the usage of a finished request, None while it is not there."""
        exchange = self._start(snapshot, request, deferred.state(request.object_id))
        status = (await exchange.head()).status
        state = await _read_state(exchange)
        if status in _GONE:
            return UsageReport(basis=Basis.UNSETTLED, faults=("the provider no longer has the object",))
        if status != 200 or not deferred.finished(state):
            return None
        reader = deferred.reader(
            request.deferred_facts.facts(request.model_requested), ResponseHead(200, "application/json")
        )
        if deferred.results is None:
            reader.feed(state)
            reader.close(complete=True)
            return reader.result()
        return await _read_results(self._start(snapshot, request, deferred.results(request.object_id)), reader)

    def _start(self, snapshot: Snapshot, request: PendingRequest, path: str) -> Exchange:
        provider = snapshot.routes.get_provider(request.provider)
        access = project_access(snapshot, provider, request.project_id)
        return self._upstream.start(access.own_request("GET", path))


def _settlement(snapshot: Snapshot, request: PendingRequest, report: UsageReport) -> Settlement:
    facts = request.deferred_facts.facts(request.model_requested)
    tariff = snapshot.tariffs[request.provider]
    report = tariff.apply_refusals(report, request.started_at)
    cost = merge_items(tariff.rate(report, facts, request.started_at))
    return Settlement(
        request_id=request.request_id,
        model=report.model or request.model_requested,
        basis=Basis.UNSETTLED if cost.faults else report.basis,
        cost=cost,
        settled_at=datetime.now(UTC),
        usage=report.raw,
        faults=(*report.faults, *cost.faults, *cost.notes),
        estimate_method=report.estimate_method,
    )


async def _read_state(exchange: Exchange) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while data := await exchange.read():
        size += len(data)
        if size > MAX_STATE_BYTES:
            exchange.abort("the state of a pending request is too large")
            raise UpstreamError(f"the state of a pending request is larger than {MAX_STATE_BYTES} bytes")
        chunks.append(data)
    return b"".join(chunks)


async def _read_results(exchange: Exchange, reader: UsageReader) -> UsageReport | None:
    """Return the usage of all results, None if they cannot be fetched now."""
    if (await exchange.head()).status != 200:
        exchange.abort("the results are not available yet")
        return None
    while data := await exchange.read():
        reader.feed(data)
    reader.close(complete=True)
    return reader.result()
