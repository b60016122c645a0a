"""Settles what is billed later: asks the provider about background responses and batches until their usage is there.

    ledger.pending_requests ──> due? ──> state ── not finished, or no response ──> poll later
                                        │ finished
                                        └──> results ──> reader ──> price ──> ledger.settle, once

The proxy asks by itself, for nobody may ever fetch a result; when a client does fetch one, the next look is at once.
What is pending is in the ledger, so that a restart forgets nothing; of two settlements of a call the first holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_proxy.domain.cost import merge_items
from tornado_proxy.domain.errors import LedgerUnavailable, UpstreamError
from tornado_proxy.domain.record import PendingRequest, Settlement
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.ledger.protocol import Ledger
from tornado_proxy.providers.contract import DeferredUsage, ResponseHead, UsageReader
from tornado_proxy.snapshot import Snapshot, SnapshotHolder
from tornado_proxy.upstream.http.client import UpstreamClient
from tornado_proxy.upstream.http.exchange import Exchange
from tornado_proxy.upstream.http.request import UpstreamRequest

_log = logging.getLogger(__name__)

#: Seconds between two looks at the ledger, and before the first look at a call.
_TICK_S = 1.0

#: How much longer each wait is than the one before.
_GROWTH = 1.5

#: Calls that are looked at in one round; the oldest come first.
_MOST = 500

#: Bytes of a state; a response with a long answer has some 100 KB.
_MAX_STATE_BYTES = 64 * 1024 * 1024

_GONE = frozenset({404, 410})


@dataclass(slots=True)
class _Wait:
    """When a call is looked at next, in loop time, and the wait that led there."""

    until: float
    seconds: float


class DeferredSettlement:
    """Settles pending calls; run() until it is cancelled."""

    def __init__(self, snapshots: SnapshotHolder, upstream: UpstreamClient, ledger: Ledger) -> None:
        self._snapshots = snapshots
        self._upstream = upstream
        self._ledger = ledger
        self._waits: dict[str, _Wait] = {}
        self._hurried: set[str] = set()
        self._wake = asyncio.Event()

    def poll_now(self, object_id: str) -> None:
        """A client has just looked at the object: it may have finished."""
        self._hurried.add(object_id)
        self._wake.set()

    async def run(self) -> None:
        """Look, and look again."""
        while True:
            with contextlib.suppress(LedgerUnavailable):
                await self._round()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _TICK_S)
            self._wake.clear()

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        calls = await self._ledger.pending_requests(_MOST)
        self._waits = {call.request_id: self._waits.get(call.request_id, _Wait(now, _TICK_S)) for call in calls}
        hurried, self._hurried = self._hurried, set()
        for call in calls:
            wait = self._waits[call.request_id]
            if call.object_id not in hurried and now < wait.until:
                continue
            settlement = await self._look(self._snapshots.current, call)
            if settlement is not None:
                await self._ledger.settle(settlement)
                _log.info(
                    "settled",
                    extra={
                        "request_id": call.request_id,
                        "basis": settlement.basis.value,
                        "total_usd": f"{settlement.cost.total:f}",
                    },
                )

    async def _look(self, snapshot: Snapshot, call: PendingRequest) -> Settlement | None:
        """What the call came to; None while that is not known."""
        endpoint = snapshot.routes.http_endpoint(call.provider, "POST", call.endpoint)
        later = endpoint.deferred_usage if endpoint is not None else None
        if later is None:
            return None
        self._wait_longer(call, later)
        try:
            report = await self._ask(snapshot, call, later)
        except UpstreamError as error:
            _log.warning("the provider cannot be asked about a pending call", extra={"reason": str(error)})
            return None
        if report is None:
            return None
        facts = call.deferred_facts.facts(call.model_requested)
        cost = merge_items(snapshot.tariffs[call.provider].rate(report, facts, call.started_at))
        return Settlement(
            request_id=call.request_id,
            model=report.model or call.model_requested,
            basis=Basis.UNSETTLED if cost.faults else report.basis,
            cost=cost,
            settled_at=datetime.now(UTC),
            usage=report.raw,
            faults=(*report.faults, *cost.faults),
            estimate_method=report.estimate_method,
        )

    def _wait_longer(self, call: PendingRequest, later: DeferredUsage) -> None:
        wait = self._waits[call.request_id]
        wait.until = asyncio.get_running_loop().time() + wait.seconds
        wait.seconds = min(wait.seconds * _GROWTH, later.max_interval_s)

    async def _ask(self, snapshot: Snapshot, call: PendingRequest, later: DeferredUsage) -> UsageReport | None:
        exchange = self._get(snapshot, call, later.state(call.object_id))
        if exchange is None:
            return None
        status = (await exchange.head()).status
        state = await _read_state(exchange)
        if status in _GONE:
            return UsageReport(basis=Basis.UNSETTLED, faults=("the provider no longer knows the object",))
        if status != 200 or not later.finished(state):
            return None
        reader = later.usage_reader(
            call.deferred_facts.facts(call.model_requested), ResponseHead(200, "application/json")
        )
        if later.results is None:
            reader.feed(state)
            reader.close(complete=True)
            return reader.result()
        results = self._get(snapshot, call, later.results(call.object_id))
        return None if results is None else await _read_results(results, reader)

    def _get(self, snapshot: Snapshot, call: PendingRequest, path: str) -> Exchange | None:
        settings = snapshot.settings.providers.get(call.provider)
        key = snapshot.provider_key(call.project_id, call.provider)
        if settings is None or key is None:
            return None
        provider = snapshot.routes.provider(call.provider)
        request = UpstreamRequest(
            method="GET",
            url=settings.base_url + path,
            headers=(("Accept", "application/json"), ("Accept-Encoding", "identity"), *provider.own_headers),
            key_headers=tuple(provider.key_headers(key).items()),
            body=None,
            connect_timeout_s=snapshot.settings.streams.connect_timeout_s,
            idle_timeout_s=snapshot.settings.streams.idle_timeout_s,
            ca_file=settings.ca_file,
        )
        return self._upstream.start(request)


async def _read_state(exchange: Exchange) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await exchange.read():
        size += len(data)
        if size > _MAX_STATE_BYTES:
            exchange.abort("the state of a pending call is too large")
            raise UpstreamError("the state of a pending call is too large")
        parts.append(data)
    return b"".join(parts)


async def _read_results(exchange: Exchange, reader: UsageReader) -> UsageReport | None:
    """The report of all results; None when they cannot be had now."""
    if (await exchange.head()).status != 200:
        exchange.abort("the results are not there yet")
        return None
    while data := await exchange.read():
        reader.feed(data)
    reader.close(complete=True)
    return reader.result()
