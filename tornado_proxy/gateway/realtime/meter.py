"""Records the usage of a WebSocket session as soon as it is known: one record per response and transcription.

It knows no client and no connection, so that a session and a realtime call's sideband are metered alike.
"""

from __future__ import annotations

import contextlib
import functools
from datetime import UTC, datetime
from typing import Protocol

from tornado_proxy.domain.cost import Cost
from tornado_proxy.domain.errors import LedgerUnavailable, RequestError
from tornado_proxy.domain.record import Outcome, RequestIntent, RequestRecord
from tornado_proxy.domain.request import RequestFacts
from tornado_proxy.domain.request_id import new_request_id
from tornado_proxy.domain.usage import Basis, UsageReport
from tornado_proxy.gateway.admission.admission import Admission
from tornado_proxy.gateway.context import RequestContext, request_intent, start_request
from tornado_proxy.gateway.recorder import FinishedRequest, Recorder
from tornado_proxy.metering.request_meter import RequestEnd, rated_record
from tornado_proxy.metering.socket_meter import SWITCHING_PROTOCOLS, SocketMeter
from tornado_proxy.pricing.book.price_book import Tariff
from tornado_proxy.providers.contract import ClientFrame, Endpoint, SocketEvent, SocketReader, WorkStarted
from tornado_proxy.upstream.credentials import ProviderAccess
from tornado_proxy.upstream.websocket.message_protocol import Wait


class MeterServices(Protocol):
    """The services that a session's meter needs."""

    @property
    def admission(self) -> Admission:
        """Reserves for work that the provider starts."""

    @property
    def recorder(self) -> Recorder:
        """Records intents and records."""


class SessionRecorder(Protocol):
    """Records a session's usage."""

    @property
    def records(self) -> int:
        """The number of records written."""

    @property
    def working(self) -> bool:
        """True while work runs that will be charged."""

    @property
    def over_budget(self) -> RequestError | None:
        """The error of a budget that the work of the session has exceeded, None if there is none."""

    @property
    def model(self) -> str | None:
        """The model of the session, None if each request names its own."""

    def renew(self, context: RequestContext[Endpoint], access: ProviderAccess) -> None:
        """Record work that begins from now on with another configuration."""

    def estimate(self) -> tuple[Cost, ...]:
        """Return the costs of the running work if the session broke off now; nothing if they are not known."""

    def expect(self, intent: RequestIntent, frame: ClientFrame, tariff: Tariff) -> None:
        """Note a request for work that is about to be sent; its intent is in the ledger."""

    def apply(self, events: tuple[SocketEvent, ...]) -> Wait | None:
        """Record the events of one frame; await the result, if any, before the next frame."""

    def close(self, outcome: Outcome, reason: str | None = None) -> None:
        """Record unfinished work at the end of the session."""


class UnbilledSession:
    """In place of SessionMeter if another connection meters the same session: records nothing."""

    records = 0
    working = False
    over_budget = None
    model = None

    def renew(self, context: RequestContext[Endpoint], access: ProviderAccess) -> None:
        """Do nothing."""

    def estimate(self) -> tuple[Cost, ...]:
        """Return nothing."""
        return ()

    def expect(self, intent: RequestIntent, frame: ClientFrame, tariff: Tariff) -> None:
        """Do nothing."""

    def apply(self, events: tuple[SocketEvent, ...]) -> None:
        """Do nothing."""

    def close(self, outcome: Outcome, reason: str | None = None) -> None:
        """Do nothing."""


class SessionMeter:
    """Meters one session, known as `session_id` in its records."""

    def __init__(
        self,
        context: RequestContext[Endpoint],
        access: ProviderAccess,
        reader: SocketReader,
        session_id: str,
        services: MeterServices,
    ) -> None:
        self._context = context
        self._access = access
        self._session_id = session_id
        self._reader = reader
        self._admission = services.admission
        self._recorder = services.recorder
        self.over_budget: RequestError | None = None
        # A bound method would make a cycle that only the garbage collector frees.
        self._new_intent = functools.partial(_session_intent, context, access, session_id)
        self._meter = SocketMeter(reader, access.tariff, self._new_intent)
        self._call: RequestIntent | None = None
        self.records = 0

    @property
    def working(self) -> bool:
        """True while work is expected or runs."""
        return self._meter.working

    @property
    def model(self) -> str | None:
        """The model of the session, None if each request names its own."""
        return self._reader.model

    def estimate(self) -> tuple[Cost, ...]:
        """Return the costs of the running work if the session broke off now; nothing if they are not known."""
        return self._meter.estimate(datetime.now(UTC))

    def renew(self, context: RequestContext[Endpoint], access: ProviderAccess) -> None:
        """Record work that begins from now on with another configuration."""
        self._context, self._access = context, access
        self._new_intent = functools.partial(_session_intent, context, access, self._session_id)
        self._meter.renew(access.tariff, self._new_intent)

    async def begin_call(self) -> None:
        """Record the intent of a whole realtime call: should this process die, the call's rest is unsettled.

        Raises:
            LedgerUnavailable: the call must not begin.
        """
        self._call = self._new_intent(RequestFacts(model=self._reader.model))
        await self._recorder.begin(self._call)

    def expect(self, intent: RequestIntent, frame: ClientFrame, tariff: Tariff) -> None:
        """Note a request for work that is about to be sent."""
        self._meter.expect(intent, frame, tariff)

    def apply(self, events: tuple[SocketEvent, ...]) -> Wait | None:
        """Record the events of one frame; await the result, if any, before the next frame."""
        for number, event in enumerate(events):
            result = self._meter.apply(event)
            if isinstance(result, RequestIntent):
                return self._begin(result, event, events[number + 1 :])
            if result is not None:
                self._finish(result)
        return None

    def close(self, outcome: Outcome, reason: str | None = None) -> None:
        """Record unfinished work, which ended with `outcome` for `reason`."""
        for record in self._meter.close(outcome, reason):
            self._finish(record)
        call, self._call = self._call, None
        if call is not None:
            end = RequestEnd(outcome, SWITCHING_PROTOCOLS, datetime.now(UTC))
            free = UsageReport(basis=Basis.FREE)
            facts = RequestFacts(model=self._reader.model)
            self._finish(rated_record(call, free, facts, self._access.tariff, end))

    async def _begin(self, intent: RequestIntent, event: SocketEvent, later: tuple[SocketEvent, ...]) -> None:
        facts = event.facts if isinstance(event, WorkStarted) else None
        facts = facts or RequestFacts(model=self._reader.model, spends=self._reader.spends)
        intent, error = await self._admission.admit_running(self._context, self._access, facts, intent)
        self.over_budget = self.over_budget or error
        with contextlib.suppress(LedgerUnavailable):  # the work runs and will be charged: its record waits instead
            await self._recorder.begin(intent)
        wait = self.apply(later)
        if wait is not None:
            await wait

    def _finish(self, record: RequestRecord) -> None:
        self.records += 1
        context = self._context
        self._recorder.finish(FinishedRequest(record, context.snapshot.generation, context.redaction))


def _session_intent(
    context: RequestContext[Endpoint], access: ProviderAccess, session_id: str, facts: RequestFacts
) -> RequestIntent:
    start = start_request(context, facts, new_request_id(), datetime.now(UTC), session=session_id)
    return request_intent(context, access, facts, start)
