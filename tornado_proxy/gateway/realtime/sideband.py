"""Calls whose media flows past the proxy (WebRTC, SIP), metered over a WebSocket that the proxy opens to the provider.

    provider's 2xx ──> answered(): connect the sideband ──> the client sees the answer
                          │ cannot be opened
                          └──> hang up, 502: no call goes on unmetered

With `websockets.sideband_failure: end` the client sees the answer at once; a call that cannot be metered is hung up.

    the sideband ends ──> opened again while the call goes on, a few times; else the call is hung up
    credential gone   ──> the call is hung up, as a WebSocket session is closed
    shutdown          ──> the call is hung up: nobody would meter it

The provider knows a call by the kind of key that made it, and a short-lived key ends before the call may: a sideband is
opened with that key or, when it is refused, with the server's own, and a call is ended with either.

Source: OpenAI guide "Webhooks and server-side controls"; both ends of a call use the same kind of key.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from datetime import UTC, datetime

from tornado_proxy import tasks
from tornado_proxy.domain.errors import LedgerUnavailable, RequestError, UpstreamError, UpstreamUnreachable
from tornado_proxy.domain.identity import Secret
from tornado_proxy.domain.record import Outcome
from tornado_proxy.domain.units import MIB
from tornado_proxy.gateway.admission import AdmittedRequest, check_spends, provider_access
from tornado_proxy.gateway.realtime.meter import SocketMeter
from tornado_proxy.gateway.services import Services
from tornado_proxy.gateway.socket_admission import check_again
from tornado_proxy.upstream.http.request import Payload, UpstreamRequest
from tornado_proxy.upstream.http.response_head import UpstreamResponseHead
from tornado_proxy.upstream.websocket.connection import UpstreamWebSocket, WebSocketRequest, connect
from tornado_proxy.upstream.websocket.frame_sender import Wait

#: Headers with a key.
Headers = tuple[tuple[str, Secret], ...]

_log = logging.getLogger(__name__)

_NOT_FOUND = 404

#: Seconds between tries to open a sideband; a call is known there a moment after its answer.
_WAITS_S = (0.1, 0.4, 1.5)

#: Times that a call's sideband may break.
_REOPENED = 5


class Sidebands:
    """Opens the sideband of the call that one request makes.  `call_id` is known when the provider has answered."""

    def __init__(self, admitted: AdmittedRequest, services: Services) -> None:
        self._admitted = admitted
        self._services = services
        self.call_id: str | None = None

    async def answered(self, head: UpstreamResponseHead) -> None:
        """The provider has answered; the client sees it when this returns.

        Raises:
            UpstreamError: the call cannot be metered, and was hung up.
        """
        location = (head.get("location") or "").partition("?")[0]
        self.call_id = self._admitted.entry.match.path_id or location.rstrip("/").rpartition("/")[2] or None
        if self.call_id is None:
            raise UpstreamError("the provider did not say which call it made, so that it cannot be metered")
        entry = self._admitted.entry
        self._services.ownership.remember(entry.match.provider.name, self.call_id, entry.caller.project_id)
        call = _MeteredCall(self._admitted, self.call_id, self._services)
        try:
            await call.begin()
            if entry.snapshot.settings.websockets.sideband_failure != "end":
                await call.open()
        except (UpstreamError, LedgerUnavailable) as error:
            await call.give_up()
            raise UpstreamError(f"the call was ended, because it could not be metered: {error.message}") from error
        tasks.spawn(call.run(), "sideband")


class _MeteredCall:
    """One call's sideband.  begin(), open() where the call is to wait for it, then run() to the call's end."""

    def __init__(self, admitted: AdmittedRequest, call_id: str, services: Services) -> None:
        self._admitted = admitted
        self._entry = admitted.entry
        self._call_id = call_id
        self._services = services
        sideband = self._entry.match.endpoint.sideband
        assert sideband is not None, "only calls with one come here"
        self._sideband = sideband
        granted = self._entry.caller.session
        query = admitted.facts.session_query or (granted.query if granted is not None else "")
        self._reader = sideband.open_reader(f"{query}&call_id={call_id}", ())
        self._base_url = provider_access(self._entry)[0].base_url
        self._meter = SocketMeter(self._entry, self._reader, call_id, services)
        self._admitted_spends = self._reader.spends
        self._socket: UpstreamWebSocket | None = None
        self._outcome: Outcome | None = None
        self._draining = False

    async def begin(self) -> None:
        """Promise the call to the ledger.

        Raises:
            LedgerUnavailable: it must not go on.
        """
        await self._meter.begins()

    async def give_up(self) -> None:
        """End a call that never had its sideband."""
        await self.hang_up()
        self._meter.close(Outcome.UPSTREAM_ERROR)

    async def open(self) -> None:
        """Connect the sideband.

        Raises:
            UpstreamError: it cannot be, after some tries.
        """
        keys = itertools.cycle(self._keys())
        for wait_s in _WAITS_S:
            with contextlib.suppress(UpstreamError):
                self._socket = await connect(self._request(next(keys)))
                return
            await asyncio.sleep(wait_s)
        self._socket = await connect(self._request(next(keys)))

    async def run(self) -> None:
        """Meter until the call has ended."""
        self._services.in_flight.add(self)
        clock = tasks.spawn(self._watch(), "call clock")
        try:
            if self._socket is None:
                await self.open()
            for _ in range(_REOPENED):
                if not await self._listen():
                    return
                await self.open()
            raise UpstreamUnreachable(f"it broke {_REOPENED} times")
        except UpstreamError as error:
            _log.warning("a call is hung up: its sideband is lost", extra={"reason": error.message})
            await self.hang_up()
        finally:
            clock.cancel()
            self._services.in_flight.discard(self)
            self._meter.close(self._outcome or Outcome.UPSTREAM_BROKEN)

    async def hang_up(self) -> None:
        """End the call at the provider."""
        statuses = []
        for key_headers in reversed(self._keys()):
            statuses.append(await self._hang_up_with(key_headers))
            if 200 <= statuses[-1] < 300:
                return
        if set(statuses) != {_NOT_FOUND}:  # it has ended by itself
            _log.error("a call could not be hung up", extra={"call_id": self._call_id, "statuses": statuses})

    async def _hang_up_with(self, key_headers: Headers) -> int:
        """The status of the provider's answer, 0 for none."""
        asked = self._admitted.upstream
        request = UpstreamRequest(
            "POST",
            self._base_url + self._sideband.hang_up(self._call_id),
            (),
            key_headers,
            Payload(b""),
            asked.connect_timeout_s,
            asked.connect_timeout_s,
            asked.ca_file,
        )
        exchange = self._services.upstream.start(request)
        try:
            return (await exchange.head()).status
        except UpstreamError:
            return 0
        finally:
            exchange.abort("nothing more is read")

    def drain(self) -> None:
        """The server is going down: end when nothing runs."""
        self._draining = True
        if not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def end(self, outcome: Outcome) -> None:
        """End the call."""
        if self._outcome is None:
            self._outcome = outcome
            tasks.spawn(self._end_call(), "hang up")

    async def _end_call(self) -> None:
        await self.hang_up()
        if self._socket is not None:
            self._socket.close()

    async def _listen(self) -> bool:
        """Read the sideband to its end; whether the call goes on without it."""
        assert self._socket is not None, "open() comes first"
        closed = await self._socket.listen(self._heard)
        self._socket.close()
        return closed.broken and self._outcome is None

    def _heard(self, frame: str | bytes) -> Wait | None:
        metered = self._meter.frame(frame)
        if metered is not None:
            return self._look_after(metered)
        self._look()
        return None

    async def _look_after(self, metered: Wait) -> None:
        await metered
        self._look()

    def _look(self) -> None:
        self._check_price()
        if self._draining and not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def _check_price(self) -> None:
        """End a call whose session has come to a model without a price."""
        spends = self._reader.spends
        if spends == self._admitted_spends:
            return
        self._admitted_spends = spends
        try:
            check_spends(self._entry, spends, datetime.now(UTC))
        except RequestError as error:
            self._refuse(error.message)

    async def _watch(self) -> None:
        limits = self._entry.snapshot.settings.websockets
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + limits.lifetime_s
        while True:
            await asyncio.sleep(min(limits.recheck_s, limits.lifetime_s))
            try:
                check_again(self._entry, self._reader.spends, self._services.snapshots.current)
            except RequestError as error:
                self._refuse(f"the credential no longer holds: {error.message}")
            if loop.time() >= ends_at:
                self._refuse(f"a call lasts {limits.lifetime_s:g} s at most")

    def _refuse(self, reason: str) -> None:
        _log.warning("a call is hung up", extra={"call_id": self._call_id, "reason": reason})
        self.end(Outcome.UPSTREAM_BROKEN)

    def _keys(self) -> tuple[Headers, ...]:
        """The key that made the call, and the server's own where that is another one."""
        provider, made_with = self._entry.match.provider, self._admitted.upstream.key_headers
        own = self._entry.snapshot.provider_key(self._entry.caller.project_id, provider.name)
        assert own is not None, "the call was made with it, or with one that it was given"
        return tuple(dict.fromkeys((made_with, tuple(provider.key_headers(own).items()))))

    def _request(self, key_headers: Headers) -> WebSocketRequest:
        asked = self._admitted.upstream
        return WebSocketRequest(
            url=self._base_url + self._sideband.target(self._call_id),
            headers=(),
            key_headers=key_headers,
            subprotocols=(),
            max_message_bytes=self._entry.snapshot.settings.websockets.max_message_mb * MIB,
            connect_timeout_s=asked.connect_timeout_s,
            ca_file=asked.ca_file,
        )
