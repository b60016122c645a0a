"""Meters realtime calls whose media does not pass the proxy (WebRTC, SIP), over a WebSocket to the provider.

    provider's 2xx ──> response_received(): connect the sideband ──> the client gets the response
                          │ connecting fails
                          └──> hang up, 502: no call runs unmetered

With `websockets.sideband_failure: end` the client gets the response at once; a call that cannot be metered is ended.

    the sideband breaks          reconnect while the call runs, MAX_RECONNECTS times; then hang up
    credential no longer valid   hang up, as a WebSocket session is closed
    a stop                       hang up
    shutdown                     hang up: the call would run unmetered

Source: OpenAI guide "Webhooks and server-side controls"; both ends of a call use the same kind of key.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from tornado_proxy import tasks
from tornado_proxy.domain.errors import (
    LedgerUnavailable,
    RequestError,
    UpstreamError,
    UpstreamUnreachable,
)
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.stop import Stop, StopTarget
from tornado_proxy.gateway.admission.admitted import AdmittedRequest
from tornado_proxy.gateway.context import renew_context
from tornado_proxy.gateway.realtime.meter import SessionMeter
from tornado_proxy.gateway.realtime.relay import ProviderSocket
from tornado_proxy.gateway.realtime.renewal import describe_recheck
from tornado_proxy.gateway.services import Services
from tornado_proxy.providers.contract import SessionChanged, Sideband, SocketEvent
from tornado_proxy.upstream.credentials import ProviderAccess, call_accesses, renew_prices
from tornado_proxy.upstream.http.messages import UpstreamResponseHead
from tornado_proxy.upstream.websocket.connection import WebSocketRequest, connect
from tornado_proxy.upstream.websocket.message_protocol import Wait

_log = logging.getLogger(__name__)

_NOT_FOUND = 404

#: Seconds between attempts to connect a sideband: the provider accepts it a moment after it has created the call.
CONNECT_BACKOFF_S = (0.1, 0.4, 1.5)

#: Times that a call's sideband may break before the call is hung up.
MAX_RECONNECTS = 5


#: Connects a WebSocket to the provider; raises UpstreamError.
OpenSocket = Callable[[WebSocketRequest], Awaitable[ProviderSocket]]


class CallSideband:
    """Opens the sideband of the call that one request creates.  `call_id` is known once the provider has responded."""

    def __init__(self, admitted: AdmittedRequest, services: Services, open_socket: OpenSocket = connect) -> None:
        self._admitted = admitted
        self._services = services
        self._open_socket = open_socket
        self.call_id: str | None = None

    async def response_received(self, head: UpstreamResponseHead) -> None:
        """Start to meter the call.  The client gets the provider's response when this returns.

        Raises:
            UpstreamError: the call cannot be metered and was hung up.
        """
        context = self._admitted.context
        location = (head.fields.get("location") or "").partition("?")[0]
        self.call_id = context.path_id or location.rstrip("/").rpartition("/")[2] or None
        if self.call_id is None:
            raise UpstreamError("the provider's response names no call, so the call cannot be metered")
        self._services.recorder.created(self._admitted.intent, context.redaction.text(self.call_id))
        call = MeteredCall(self._admitted, self.call_id, self._services, self._open_socket)
        try:
            await call.begin()
            if context.snapshot.settings.websockets.sideband_failure != "end":
                await call.connect()
        except (UpstreamError, LedgerUnavailable) as error:
            await call.give_up()
            raise UpstreamError(f"the call was ended because it could not be metered: {error.message}") from error
        tasks.spawn(call.run(), "sideband")


class MeteredCall:
    """One call's sideband: begin(), connect() unless run() may do it, then run() until the call has ended."""

    def __init__(self, admitted: AdmittedRequest, call_id: str, services: Services, open_socket: OpenSocket) -> None:
        self._context = admitted.context
        self._agent_session = admitted.intent.attribution.agent_session
        self._call_id = call_id
        self._services = services
        self._open_socket = open_socket
        self._sideband = _sideband_of(admitted)
        self._access = admitted.access
        self._accesses = call_accesses(admitted.access)
        session = self._context.caller.session
        query = admitted.facts.session_query or (session.query if session is not None else "")
        self._reader = self._sideband.open_reader(f"{query}&call_id={call_id}", ())
        self._meter = SessionMeter(self._context, admitted.access, self._reader, call_id, services)
        self._socket: ProviderSocket | None = None
        self._outcome: Outcome | None = None
        self._fault: str | None = None
        self._draining = False
        self._hung_up = False

    async def begin(self) -> None:
        """Record the intent of the call.

        Raises:
            LedgerUnavailable: the call must not go on.
        """
        await self._meter.begin_call()
        self._services.live_calls.add(self._context.provider.name, self._call_id)

    async def give_up(self) -> None:
        """End a call whose sideband was never connected."""
        await self.hang_up()
        self._close_meter(Outcome.UPSTREAM_ERROR)

    async def connect(self) -> None:
        """Connect the sideband, with each key that may know the call in turn.

        Raises:
            UpstreamError: all attempts failed.
        """
        accesses = itertools.cycle(self._accesses)
        for backoff_s in CONNECT_BACKOFF_S:
            with contextlib.suppress(UpstreamError):
                self._socket = await self._connect_with(next(accesses))
                return
            await asyncio.sleep(backoff_s)
        self._socket = await self._connect_with(next(accesses))

    async def run(self) -> None:
        """Meter until the call has ended."""
        self._services.capacity.add(self, self._context.caller.project_id)
        limits = self._context.snapshot.settings.websockets
        self._ends_at = asyncio.get_running_loop().time() + limits.lifetime_s
        interval_s = min(limits.recheck_s, limits.lifetime_s)
        self._services.session_sweep.add(self, interval_s)
        if self._services.capacity.draining:  # since the request for the call
            self.drain()
        try:
            await self._listen_until_ended()
        except UpstreamError as error:
            _log.warning("realtime call hung up: sideband lost", extra={"reason": error.message})
            await self.hang_up()
        finally:
            self._services.session_sweep.discard(self, interval_s)
            self._services.capacity.discard(self)
            self._close_meter(self._outcome or Outcome.UPSTREAM_BROKEN)

    async def hang_up(self) -> None:
        """End the call at the provider, with the lasting key first: a short-lived one may have expired."""
        statuses = []
        for access in reversed(self._accesses):
            statuses.append(await self._hang_up_with(access))
            if 200 <= statuses[-1] < 300:
                return
        if set(statuses) != {_NOT_FOUND}:  # 404: the call has ended already
            _log.error("realtime call could not be hung up", extra={"call_id": self._call_id, "statuses": statuses})

    def drain(self) -> None:
        """Called when the server shuts down: end as soon as nothing runs."""
        self._draining = True
        if not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def end(self, outcome: Outcome) -> None:
        """Hang up now."""
        if self._outcome is None:
            self._outcome = outcome
            tasks.spawn(self._hang_up_and_close(), "hang up")

    def is_covered(self, target: StopTarget) -> bool:
        """Return True if a stop of `target` covers the call."""
        return target.covers(self._context.caller, self._agent_session)

    def stop(self, stop: Stop) -> None:
        """Hang up because of a stop that covers the call."""
        if self._outcome is None:
            self._hang_up_for(str(stop))

    def _close_meter(self, outcome: Outcome) -> None:
        self._services.live_calls.discard(self._context.provider.name, self._call_id)
        self._meter.close(outcome, self._fault)

    async def _hang_up_and_close(self) -> None:
        await self.hang_up()
        self._hung_up = True
        if self._socket is not None:
            self._socket.close()

    async def _listen_until_ended(self) -> None:
        if self._socket is None:
            await self.connect()
        for _ in range(MAX_RECONNECTS):
            if not await self._listen():
                return
            await self.connect()
        raise UpstreamUnreachable(f"the sideband broke {MAX_RECONNECTS} times")

    async def _listen(self) -> bool:
        """Read the sideband to its end; return True if it broke while the call goes on."""
        assert self._socket is not None, "connect() comes first"
        if self._hung_up:  # while it was connected
            self._socket.close()
        closed = await self._socket.listen(self._on_frame)
        self._socket.close()
        return closed.broken and self._outcome is None

    def _on_frame(self, frame: str | bytes) -> Wait | None:
        events = self._reader.feed_server_frame(frame)
        if not events:
            return None
        self._renew()
        wait = self._meter.apply(events)
        if wait is not None:
            return self._check_after(wait, events)
        self._check(events)
        return None

    def _renew(self) -> None:
        """Follow the configuration: the next response gets the present one."""
        snapshot = self._services.snapshots.current
        if snapshot is not self._context.snapshot:
            self._context = renew_context(self._context, snapshot)
            self._meter.renew(self._context, renew_prices(self._access, snapshot))

    async def _check_after(self, metered: Wait, events: tuple[SocketEvent, ...]) -> None:
        await metered
        self._check(events)

    def _check(self, events: tuple[SocketEvent, ...]) -> None:
        """Hang up a call that has moved to a model without a price, or one that has nothing to do at shutdown."""
        for event in events:
            if not isinstance(event, SessionChanged):
                continue
            try:
                self._services.admission.admit_spends(self._context, event.spends, datetime.now(UTC))
            except RequestError as error:
                self._hang_up_for(error.message)
        if self._meter.over_budget is not None:
            self._hang_up_for(self._meter.over_budget.message)
        if self._draining and not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def check_limits(self, now: float) -> None:
        """Hang up if the call is too old, or its credential is not valid any more."""
        if self._outcome is not None:
            return
        tasks.spawn(self._recheck(), "call recheck")
        if now >= self._ends_at:
            lifetime_s = self._context.snapshot.settings.websockets.lifetime_s
            self._hang_up_for(f"the call reached its lifetime of {lifetime_s:g} s")

    async def _recheck(self) -> None:
        services = self._services
        try:
            await services.admission.recheck(self._context, self._reader.spends, services.snapshots.current)
        except RequestError as error:
            self._hang_up_for(describe_recheck(error))

    def _hang_up_for(self, reason: str) -> None:
        _log.warning("realtime call hung up", extra={"call_id": self._call_id, "reason": reason})
        if self._outcome is None:
            self._fault = reason
        self.end(Outcome.PROXY_CLOSED)

    async def _connect_with(self, access: ProviderAccess) -> ProviderSocket:
        return await self._open_socket(access.websocket_request(self._sideband.target(self._call_id), (), ()))

    async def _hang_up_with(self, access: ProviderAccess) -> int:
        """Return the status of the provider's response, 0 if there is none."""
        request = access.own_request("POST", self._sideband.hang_up(self._call_id))
        exchange = self._services.upstream.start(replace(request, idle_timeout_s=request.connect_timeout_s))
        try:
            return (await exchange.head()).status
        except UpstreamError:
            return 0
        finally:
            exchange.abort("only the status is read")


def _sideband_of(admitted: AdmittedRequest) -> Sideband:
    sideband = admitted.context.endpoint.sideband
    assert sideband is not None, "only endpoints with a sideband create calls"
    return sideband
