"""Calls whose media flows past the proxy (WebRTC, SIP), metered over a WebSocket that the proxy opens to the provider.

    provider's 2xx ──> answered(): connect the sideband ──> the client sees the answer
                          │ cannot be opened
                          └──> hang up, 502: no call goes on unmetered

With `websockets.sideband_failure: end` the client sees the answer at once; a call that cannot be metered is hung up.

    the sideband ends ──> opened again while the call goes on, a few times; else the call is hung up
    shutdown          ──> the call is hung up: nobody would meter it

Source: OpenAI guide "Webhooks and server-side controls"; both ends of a call use the same kind of key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

from tornado_proxy import tasks
from tornado_proxy.domain.call import Outcome
from tornado_proxy.domain.errors import AnswerableError, UpstreamError
from tornado_proxy.upstream.exchange import Head, Payload, UpstreamRequest
from tornado_proxy.upstream.websocket import Closed, SocketRequest, UpstreamSocket, connect
from tornado_proxy.web.admission import Admitted, check_spends, provider_access
from tornado_proxy.web.services import Services
from tornado_proxy.web.socket_meter import SocketMeter

_log = logging.getLogger(__name__)

_MIB = 1024 * 1024

#: Seconds between tries to open a sideband; a call is known there a moment after its answer.
_WAITS_S = (0.1, 0.4, 1.5)


class Sidebands:
    """Opens the sideband of the call that one request makes.  `call_id` is known when the provider has answered."""

    def __init__(self, admitted: Admitted, services: Services) -> None:
        self._admitted = admitted
        self._services = services
        self.call_id: str | None = admitted.entry.match.object_id

    async def answered(self, head: Head) -> None:
        """The provider has answered; the client sees it when this returns.

        Raises:
            UpstreamError: the call cannot be metered, and was hung up.
        """
        location = (head.get("location") or "").partition("?")[0]
        self.call_id = self.call_id or location.rstrip("/").rpartition("/")[2] or None
        if self.call_id is None:
            raise UpstreamError("the provider did not say which call it made, so that it cannot be metered")
        entry = self._admitted.entry
        self._services.ownership.remember(entry.match.provider.name, self.call_id, entry.caller.project_id)
        call = _MeteredCall(self._admitted, self.call_id, self._services)
        if entry.snapshot.settings.websockets.sideband_failure == "end":
            tasks.spawn(call.run(), "sideband")
            return
        try:
            await call.open()
        except UpstreamError as error:
            await call.hang_up()
            raise UpstreamError(f"the call was ended, because it could not be metered: {error.message}") from error
        tasks.spawn(call.run(), "sideband")


class _MeteredCall:
    """One call's sideband.  run() to the end of the call, after open() where the call is to wait for it."""

    def __init__(self, admitted: Admitted, call_id: str, services: Services) -> None:
        self._admitted = admitted
        self._entry = admitted.entry
        self._call_id = call_id
        self._services = services
        sideband = self._entry.match.endpoint.sideband
        assert sideband is not None, "only calls with one come here"
        self._sideband = sideband
        granted = self._entry.caller.session
        query = admitted.facts.session_query or (granted.query if granted is not None else "")
        self._reader = sideband.open(f"{query}&call_id={call_id}", ())
        self._base_url = provider_access(self._entry)[0].base_url
        self._meter = SocketMeter(self._entry, self._reader, call_id, services)
        self._admitted_spends = self._reader.spends()
        self._socket: UpstreamSocket | None = None
        self._outcome: Outcome | None = None
        self._draining = False

    async def open(self) -> None:
        """Connect the sideband.

        Raises:
            UpstreamError: it cannot be, after some tries.
        """
        for wait_s in _WAITS_S:
            with contextlib.suppress(UpstreamError):
                self._socket = await connect(self._request())
                return
            await asyncio.sleep(wait_s)
        self._socket = await connect(self._request())

    async def run(self) -> None:
        """Meter until the call has ended."""
        self._services.in_flight.add(self)
        try:
            if self._socket is None:
                await self.open()
            while await self._listen():
                await self.open()
        except UpstreamError as error:
            _log.warning("a call is hung up: its sideband is lost", extra={"reason": error.message})
            await self.hang_up()
        finally:
            self._services.in_flight.discard(self)
            self._meter.close(self._outcome or Outcome.UPSTREAM_BROKEN)

    async def hang_up(self) -> None:
        """End the call at the provider."""
        asked = self._admitted.upstream
        request = UpstreamRequest(
            "POST",
            self._base_url + self._sideband.hang_up(self._call_id),
            (),
            asked.key_headers,
            Payload(b""),
            asked.connect_timeout_s,
            asked.connect_timeout_s,
            asked.ca_file,
        )
        exchange = self._services.upstream.start(request)
        try:
            await exchange.head()
        except UpstreamError as error:
            _log.error("a call could not be hung up", extra={"call_id": self._call_id, "reason": error.message})
        finally:
            exchange.abort("nothing more is read")

    def drain(self) -> None:
        """The server is going down: end when nothing runs."""
        self._draining = True
        if not self._meter.working:
            self.end(Outcome.SHUTDOWN)

    def end(self, outcome: Outcome) -> None:
        """End the call."""
        self._outcome = self._outcome or outcome
        tasks.spawn(self._end_call(), "hang up")

    async def _end_call(self) -> None:
        await self.hang_up()
        if self._socket is not None:
            self._socket.close()

    async def _listen(self) -> bool:
        """Read the sideband to its end; whether the call goes on without it."""
        assert self._socket is not None, "open() comes first"
        while True:
            frame = await self._socket.read()
            if isinstance(frame, Closed):
                self._socket.close()
                return frame.broken and self._outcome is None
            await self._meter.frame(frame)
            self._check_price()
            if self._draining and not self._meter.working:
                self.end(Outcome.SHUTDOWN)

    def _check_price(self) -> None:
        """End a call whose session has come to a model without a price."""
        spends = self._reader.spends()
        if spends == self._admitted_spends:
            return
        self._admitted_spends = spends
        try:
            check_spends(self._entry, spends, datetime.now(UTC))
        except AnswerableError as error:
            _log.warning("a call is hung up", extra={"call_id": self._call_id, "reason": error.message})
            self.end(Outcome.UPSTREAM_BROKEN)

    def _request(self) -> SocketRequest:
        asked = self._admitted.upstream
        return SocketRequest(
            url=self._base_url + self._sideband.target(self._call_id),
            headers=(),
            key_headers=asked.key_headers,
            subprotocols=(),
            max_message_bytes=self._entry.snapshot.settings.websockets.max_message_mb * _MIB,
            connect_timeout_s=asked.connect_timeout_s,
            ca_file=asked.ca_file,
        )
