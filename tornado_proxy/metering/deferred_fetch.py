"""Fetches the usage of one pending request from its provider.

state ──> 404, 410: Missing
  │  └──> unfinished, or another status: Unfinished
  └ finished ──> usage in the state: Ended
             └──> results ──> all that the state counts: Ended; else Missing, with what they state
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec.structs import replace

from tornado_proxy.domain.errors import UpstreamError, UpstreamTimeout
from tornado_proxy.domain.record import PendingRequest
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.units import MIB
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.providers.contract import DeferredUsage, ResponseHead, UsageReader
from tornado_proxy.providers.shared.usage_report import with_fault
from tornado_proxy.upstream.credentials import ProviderAccess
from tornado_proxy.upstream.http.protocols import ProviderExchange, Upstream

#: Bytes of a state; one of a response with a long text has some 100 KB.
MAX_STATE_BYTES = 64 * MIB

#: Seconds for a state.  It is some milliseconds of work for a provider; a poll that waits longer keeps a slot.
MAX_STATE_S = 30.0

#: Statuses that say that the provider does not find the object (RFC 9110 sections 15.5.5 and 15.5.11).
_GONE = frozenset({404, 410})

_JSON = ResponseHead(200, "application/json")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The work has not ended, as far as the response tells; `cancelling` is True if it was cancelled and ends soon."""

    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The work has ended, and this is its usage."""

    report: UsageReport


@dataclass(frozen=True, slots=True)
class Missing:
    """The response lacks usage that it should have, or a part.  `report` has the known part and the reason."""

    report: UsageReport


Fetched = Unfinished | Ended | Missing


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The work after a request to cancel it; `refusal` says why the provider has not accepted that, None if it has."""

    fetched: Fetched
    refusal: str | None = None


class DeferredFetch:
    """Fetches the usage of `request` with `access`; `output_bytes` of its output have passed by."""

    def __init__(
        self,
        upstream: Upstream,
        access: ProviderAccess,
        deferred: DeferredUsage,
        request: PendingRequest,
        output_bytes: int = 0,
    ) -> None:
        self._upstream = upstream
        self._access = access
        self._deferred = deferred
        self._object_id = request.object_id
        self._facts = make_facts(request, output_bytes)

    async def fetch(self) -> Fetched:
        """Return the usage if it is there.

        Raises:
            UpstreamError: the provider did not respond.
        """
        return await self._read(await self._fetch_state("GET", self._deferred.state(self._object_id)))

    async def cancel(self) -> Cancelled:
        """End the work, and return the usage that the provider then states.

        Raises:
            UpstreamError: the provider did not respond.
        """
        status, state = await self._fetch_state("POST", self._deferred.cancel(self._object_id))
        fetched = await self._read((status, state))
        if status == 200 and not isinstance(fetched, Missing):
            return Cancelled(fetched)
        refusal = None if status == 200 else f"the provider responds to the cancellation with status {status}"
        # The work can have ended just before.
        return Cancelled(await self.fetch(), refusal)

    async def _read(self, response: tuple[int, bytes]) -> Fetched:
        status, state = response
        if status in _GONE:
            return Missing(self._report_gone(status))
        if status != 200:
            return Unfinished()
        if not self._deferred.finished(state):
            return Unfinished(self._deferred.is_cancelling(state))
        if self._deferred.results is not None:
            return await self._read_results(self._deferred.results(self._object_id), state)
        reader = self._deferred.reader(self._facts, _JSON)
        reader.feed(state)
        reader.close(complete=True)
        return Ended(reader.result())

    def _report_gone(self, status: int) -> UsageReport:
        fault = f"the provider does not find the object (status {status})"
        if self._deferred.estimate is not None and self._facts.seen_output_bytes:
            estimate = self._deferred.estimate(self._facts)
            return replace(estimate, faults=(*estimate.faults, fault))
        return UsageReport(basis=Basis.UNSETTLED, faults=(fault,))

    async def _fetch_state(self, method: str, path: str) -> tuple[int, bytes]:
        exchange = self._upstream.start(self._access.own_request(method, path))
        try:
            async with asyncio.timeout(MAX_STATE_S):
                return (await exchange.head()).status, await _read_state(exchange)
        except TimeoutError:
            exchange.abort("the state of a pending request did not arrive in time")
            raise UpstreamTimeout(f"the provider sent no state of a pending request for {MAX_STATE_S:g} s") from None

    async def _read_results(self, path: str, state: bytes) -> Fetched:
        exchange = self._upstream.start(self._access.own_request("GET", path))
        if (await exchange.head()).status != 200:
            exchange.abort("the results are not available yet")
            unavailable = "the provider has not made the results available"
            return Missing(UsageReport(basis=Basis.UNSETTLED, faults=(unavailable,)))
        report = await _read_usage(exchange, self._deferred.reader(self._facts, _JSON))
        fault = None if self._deferred.check is None else self._deferred.check(state, report)
        return Ended(report) if fault is None else Missing(with_fault(report, fault, basis=Basis.UNSETTLED))


def make_facts(request: PendingRequest, output_bytes: int = 0) -> RequestFacts:
    """Return the facts of a pending request; `output_bytes` of its output have passed by since its record."""
    facts = request.deferred_facts.facts(request.model_requested)
    if output_bytes <= facts.seen_output_bytes:
        return facts
    return replace(facts, seen_output_bytes=output_bytes)


async def _read_state(exchange: ProviderExchange) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while data := await exchange.read():
        size += len(data)
        if size > MAX_STATE_BYTES:
            exchange.abort("the state of a pending request is too large")
            raise UpstreamError(f"the state of a pending request is larger than {MAX_STATE_BYTES} bytes")
        chunks.append(data)
    return b"".join(chunks)


async def _read_usage(exchange: ProviderExchange, reader: UsageReader) -> UsageReport:
    while data := await exchange.read():
        reader.feed(data)
    reader.close(complete=True)
    return reader.result()
